//! A link's session: frames are counted in both directions and acknowledged, so that they can be replayed.
//!
//! One machine serves both ends. Time comes in as milliseconds of any clock that only goes forward.
//! Handshake frames and pings are not counted: whoever drives the link just doesn't hand them in.
//!
//! ```text
//!  what we send                                what we receive
//!
//!   1 ──────── acknowledged ──────── sent       1 ──────── told ──────── received
//!   └── the peer has ──┘└─ on the way ─┘        └ the peer knows ┘└─ owed ─┘
//!      ▲ handle_ping        ▲ handle_sent          ▲ poll_ping,     ▲ handle_received
//!                                                    keep_alive
//!
//!                   handle_received                        handle_received
//!   Nothing owed ─────────────────────► Due 100 ms after ──┐ (due as before)
//!        ▲                              the first frame ◄──┘
//!        └─── poll_ping once due, keep_alive ────┘
//! ```
//!
//! What the frames were is none of this module's business: the numbers that it gives out are the keys by which
//! whoever keeps frames for replay drops those up to [`acknowledged`](Session::acknowledged).

use bytestring::ByteString;

use super::Ping;
use crate::limits::ACKNOWLEDGE_DELAY_MS;

/// The key of the pair in which an acknowledgement rides on a service ping; the value is the decimal number of
/// the last frame received. Azure's SDK ignores pairs that it doesn't know.
pub const ACKNOWLEDGE_KEY: &str = "trunkline-ack";

/// Why a peer's acknowledgement makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It acknowledges what was never sent.
    #[error("frame {acknowledged} was acknowledged, but only {sent} were sent")]
    AheadOfUs {
        /// What the peer claims to have.
        acknowledged: u64,
        /// What was sent.
        sent: u64,
    },
    /// It takes back an acknowledgement.
    #[error("frame {acknowledged} was acknowledged after frame {before}")]
    Backwards {
        /// What the peer claims to have.
        acknowledged: u64,
        /// What it had claimed before.
        before: u64,
    },
    /// The value is no number.
    #[error("an acknowledgement is no number")]
    NoNumber,
}

/// The counters of a link. Handshake frames and pings are not counted.
#[derive(Debug, Default)]
pub struct Session {
    /// Frames sent, which is the number of the last one.
    sent: u64,
    /// The last of them that the peer has.
    acknowledged: u64,
    /// Frames received, which is the number of the last one.
    received: u64,
    /// Whether the peer knows of all of them.
    owed: Owed,
}

/// The acknowledgement that we owe.
#[derive(Debug, Default)]
enum Owed {
    #[default]
    Nothing,
    Due {
        at_ms: u64,
    },
}

impl Session {
    /// A session at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame goes out: its number, from 1.
    pub fn handle_sent(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// A frame came in and stands in its connection's queue: it will be acknowledged.
    pub fn handle_received(&mut self, now_ms: u64) {
        self.received += 1;
        if let Owed::Nothing = self.owed {
            self.owed = Owed::Due { at_ms: now_ms.saturating_add(ACKNOWLEDGE_DELAY_MS) };
        }
    }

    /// A ping came in: takes the acknowledgement that may ride on it.
    ///
    /// # Errors
    /// When the acknowledgement makes no sense; the link is to be dropped.
    pub fn handle_ping(&mut self, ping: &Ping) -> Result<(), SessionError> {
        let Some(value) = ping.get(ACKNOWLEDGE_KEY) else {
            return Ok(());
        };
        let (acknowledged, sent, before) = (parse(value)?, self.sent, self.acknowledged);
        if acknowledged > sent {
            return Err(SessionError::AheadOfUs { acknowledged, sent });
        }
        if acknowledged < before {
            return Err(SessionError::Backwards { acknowledged, before });
        }
        self.acknowledged = acknowledged;
        Ok(())
    }

    /// When [`poll_ping`](Self::poll_ping) will have an acknowledgement to send; `None` when nothing is owed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.owed {
            Owed::Nothing => None,
            Owed::Due { at_ms } => Some(at_ms),
        }
    }

    /// The ping with the acknowledgement that is due by now.
    pub fn poll_ping(&mut self, now_ms: u64) -> Option<Ping> {
        match self.owed {
            Owed::Due { at_ms } if at_ms <= now_ms => Some(self.keep_alive()),
            _ => None,
        }
    }

    /// A keep-alive, with the acknowledgement that is owed, due or not.
    pub fn keep_alive(&mut self) -> Ping {
        match std::mem::take(&mut self.owed) {
            Owed::Nothing => Ping::default(),
            Owed::Due { .. } => {
                Ping { pairs: vec![(ByteString::from_static(ACKNOWLEDGE_KEY), self.received.to_string().into())] }
            }
        }
    }

    /// Frames sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Frames received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Frames that the peer has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

/// Digits and nothing else: `u64::from_str` would take a plus sign, too.
fn parse(value: &str) -> Result<u64, SessionError> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SessionError::NoNumber);
    }
    value.parse().map_err(|_| SessionError::NoNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledgement(value: &str) -> Ping {
        Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), value.into())] }
    }

    fn session_that_sent(frames: u64) -> Session {
        let mut session = Session::new();
        (0..frames).for_each(|_| {
            session.handle_sent();
        });
        session
    }

    #[test]
    fn frames_are_numbered_from_1() {
        let mut session = Session::new();
        assert_eq!((session.handle_sent(), session.handle_sent()), (1, 2));
        assert_eq!((session.sent(), session.received(), session.acknowledged()), (2, 0, 0));
    }

    #[test]
    fn an_idle_link_acknowledges_nothing() {
        let mut session = Session::new();
        session.handle_sent();
        assert_eq!(session.poll_timeout(), None);
        assert_eq!(session.poll_ping(u64::MAX), None);
        assert_eq!(session.keep_alive(), Ping::default());
    }

    #[test]
    fn an_acknowledgement_is_due_after_the_delay_and_names_all_that_came_till_then() {
        let mut session = Session::new();
        session.handle_received(1_000);
        session.handle_received(1_060);
        let due_ms = 1_000 + ACKNOWLEDGE_DELAY_MS;
        assert_eq!(session.poll_timeout(), Some(due_ms));
        assert_eq!(session.poll_ping(due_ms - 1), None);
        assert_eq!(session.poll_ping(due_ms), Some(acknowledgement("2")));
        assert_eq!(session.poll_timeout(), None);
        assert_eq!(session.poll_ping(due_ms), None);
    }

    #[test]
    fn the_next_frame_starts_a_new_delay() {
        let mut session = Session::new();
        session.handle_received(0);
        session.poll_ping(ACKNOWLEDGE_DELAY_MS).unwrap();
        session.handle_received(500);
        assert_eq!(session.poll_timeout(), Some(500 + ACKNOWLEDGE_DELAY_MS));
    }

    #[test]
    fn a_keep_alive_takes_along_what_is_owed() {
        let mut session = Session::new();
        session.handle_received(0);
        assert_eq!(session.keep_alive(), acknowledgement("1"));
        assert_eq!(session.poll_timeout(), None);
        assert_eq!(session.keep_alive(), Ping::default());
    }

    #[test]
    fn an_acknowledgement_is_taken_from_among_other_pairs() {
        let mut session = session_that_sent(3);
        let mut ping = acknowledgement("2");
        ping.pairs.insert(0, ("status".into(), "1".into()));
        assert_eq!(session.handle_ping(&ping), Ok(()));
        assert_eq!(session.acknowledged(), 2);
    }

    #[test]
    fn other_pings_are_ignored() {
        let mut session = session_that_sent(3);
        assert_eq!(session.handle_ping(&Ping::default()), Ok(()));
        assert_eq!(session.handle_ping(&Ping { pairs: vec![("echo".into(), "7".into())] }), Ok(()));
        assert_eq!(session.acknowledged(), 0);
    }

    #[test]
    fn the_same_acknowledgement_may_come_twice() {
        let mut session = session_that_sent(3);
        assert_eq!(session.handle_ping(&acknowledgement("3")), Ok(()));
        assert_eq!(session.handle_ping(&acknowledgement("3")), Ok(()));
        assert_eq!(session.acknowledged(), 3);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut session = session_that_sent(3);
        let expected = SessionError::AheadOfUs { acknowledged: 4, sent: 3 };
        assert_eq!(session.handle_ping(&acknowledgement("4")), Err(expected));
        assert_eq!(session.acknowledged(), 0);
    }

    #[test]
    fn an_acknowledgement_cannot_be_taken_back() {
        let mut session = session_that_sent(3);
        session.handle_ping(&acknowledgement("2")).unwrap();
        let expected = SessionError::Backwards { acknowledged: 1, before: 2 };
        assert_eq!(session.handle_ping(&acknowledgement("1")), Err(expected));
        assert_eq!(session.acknowledged(), 2);
    }

    #[test]
    fn an_acknowledgement_must_be_a_number() {
        for value in ["", "+1", "-1", " 1", "1.0", "one", "18446744073709551616"] {
            let mut session = session_that_sent(3);
            assert_eq!(session.handle_ping(&acknowledgement(value)), Err(SessionError::NoNumber), "{value:?}");
        }
    }
}
