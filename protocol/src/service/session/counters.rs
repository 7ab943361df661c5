//! Frame counters of a session in both directions, and the acknowledgements between its ends.
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
//!   Nothing owed ─────────────────────► Due 100 ms after ──┐ (due as before, or at once
//!        ▲                              the first frame ◄──┘  when many bytes are owed)
//!        └─── poll_ping once due, keep_alive ────┘
//! ```
//!
//! Handshake frames and pings are not counted: whoever drives the link just doesn't hand them in.

use bytestring::ByteString;

use super::SessionError;
use crate::limits::ACKNOWLEDGE_DELAY_MS;
use crate::service::Ping;

/// The key of the pair in which an acknowledgement rides on a service ping; the value is the decimal number of
/// the last frame received. Azure's SDK ignores pairs that it doesn't know.
pub const ACKNOWLEDGE_KEY: &str = "trunkline-ack";

/// The key of the pair in a ping that its receiver sends straight back, as Azure's service and SDK have it.
pub const ECHO_KEY: &str = "echo";

/// The key of the pair in a ping by which a proxy tells app servers that another one has crashed; the value is the boot
/// id of that. Older app servers ignore it.
pub const CRASHED_NODE_KEY: &str = "trunkline-crashed";

/// The counters of one session, or of a link without one.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames sent, which is the number of the last one.
    sent: u64,
    /// The last of them that the peer has.
    acknowledged: u64,
    /// Frames received, which is the number of the last one.
    received: u64,
    /// Whether the peer knows of all of them.
    owed: Owed,
    /// Bytes of the frames that the peer doesn't know of.
    owed_bytes: usize,
}

/// Acknowledgement that we owe the peer.
#[derive(Debug, Default)]
enum Owed {
    #[default]
    Nothing,
    Due {
        at_ms: u64,
    },
}

impl Counters {
    /// Creates counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a frame that goes out, and returns its number, from 1.
    pub fn handle_sent(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Counts a frame that came in and stands in its connection's queue: it will be acknowledged.
    pub fn handle_received(&mut self, now_ms: u64) {
        self.received += 1;
        if let Owed::Nothing = self.owed {
            self.owed = Owed::Due { at_ms: now_ms.saturating_add(ACKNOWLEDGE_DELAY_MS) };
        }
    }

    /// Notes that frames up to `number` have gone out, perhaps again.
    pub(super) fn sent_up_to(&mut self, number: u64) {
        self.sent = self.sent.max(number);
    }

    /// Notes that frames up to `number` are taken, `bytes` of them new; from `prompt_bytes` on the acknowledgement is
    /// due at once.
    pub(super) fn received_up_to(&mut self, number: u64, bytes: usize, prompt_bytes: usize, now_ms: u64) {
        if number <= self.received {
            return;
        }
        self.received = number;
        self.owed_bytes = self.owed_bytes.saturating_add(bytes);
        let at_ms = match self.owed {
            _ if self.owed_bytes >= prompt_bytes => now_ms,
            Owed::Due { at_ms } => at_ms,
            Owed::Nothing => now_ms.saturating_add(ACKNOWLEDGE_DELAY_MS),
        };
        self.owed = Owed::Due { at_ms };
    }

    /// Notes that the upgrade told the peer the number of received frames.
    pub(super) fn told(&mut self, number: u64) {
        if number >= self.received {
            (self.owed, self.owed_bytes) = (Owed::Nothing, 0);
        }
    }

    /// Takes the acknowledgement of all frames up to this one.
    ///
    /// # Errors
    /// When the peer can't have them, or takes an acknowledgement back.
    pub(super) fn acknowledge(&mut self, acknowledged: u64) -> Result<(), SessionError> {
        let (sent, before) = (self.sent, self.acknowledged);
        if acknowledged > sent {
            return Err(SessionError::AheadOfUs { acknowledged, sent });
        }
        if acknowledged < before {
            return Err(SessionError::Backwards { acknowledged, before });
        }
        self.acknowledged = acknowledged;
        Ok(())
    }

    /// Takes the acknowledgement that may ride on a ping.
    ///
    /// # Errors
    /// When the acknowledgement makes no sense; the driver has to drop the link.
    pub fn handle_ping(&mut self, ping: &Ping) -> Result<(), SessionError> {
        let Some(value) = ping.get(ACKNOWLEDGE_KEY) else {
            return Ok(());
        };
        self.acknowledge(number(value)?)
    }

    /// Returns when [`poll_ping`](Self::poll_ping) will have an acknowledgement to send; `None` when nothing is owed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.owed {
            Owed::Nothing => None,
            Owed::Due { at_ms } => Some(at_ms),
        }
    }

    /// Returns the ping with the acknowledgement that is due by now.
    pub fn poll_ping(&mut self, now_ms: u64) -> Option<Ping> {
        match self.owed {
            Owed::Due { at_ms } if at_ms <= now_ms => Some(self.keep_alive()),
            _ => None,
        }
    }

    /// Returns a keep-alive, with the acknowledgement that is owed, due or not.
    pub fn keep_alive(&mut self) -> Ping {
        self.owed_bytes = 0;
        match std::mem::take(&mut self.owed) {
            Owed::Nothing => Ping::default(),
            Owed::Due { .. } => {
                Ping { pairs: vec![(ByteString::from_static(ACKNOWLEDGE_KEY), self.received.to_string().into())] }
            }
        }
    }

    /// Returns the number of frames sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the number of frames received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of frames that the peer has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

/// Parses digits and nothing else: `u64::from_str` takes a plus sign, too.
pub(super) fn number(value: &str) -> Result<u64, SessionError> {
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

    fn counters_that_sent(frames: u64) -> Counters {
        let mut counters = Counters::new();
        (0..frames).for_each(|_| {
            counters.handle_sent();
        });
        counters
    }

    #[test]
    fn frames_are_numbered_from_1() {
        let mut counters = Counters::new();
        assert_eq!((counters.handle_sent(), counters.handle_sent()), (1, 2));
        assert_eq!((counters.sent(), counters.received(), counters.acknowledged()), (2, 0, 0));
    }

    #[test]
    fn an_idle_link_acknowledges_nothing() {
        let mut counters = Counters::new();
        counters.handle_sent();
        assert_eq!(counters.poll_timeout(), None);
        assert_eq!(counters.poll_ping(u64::MAX), None);
        assert_eq!(counters.keep_alive(), Ping::default());
    }

    #[test]
    fn an_acknowledgement_is_due_after_the_delay_and_names_all_that_came_till_then() {
        let mut counters = Counters::new();
        counters.handle_received(1_000);
        counters.handle_received(1_060);
        let due_ms = 1_000 + ACKNOWLEDGE_DELAY_MS;
        assert_eq!(counters.poll_timeout(), Some(due_ms));
        assert_eq!(counters.poll_ping(due_ms - 1), None);
        assert_eq!(counters.poll_ping(due_ms), Some(acknowledgement("2")));
        assert_eq!(counters.poll_timeout(), None);
        assert_eq!(counters.poll_ping(due_ms), None);
    }

    #[test]
    fn the_next_frame_starts_a_new_delay() {
        let mut counters = Counters::new();
        counters.handle_received(0);
        counters.poll_ping(ACKNOWLEDGE_DELAY_MS).unwrap();
        counters.handle_received(500);
        assert_eq!(counters.poll_timeout(), Some(500 + ACKNOWLEDGE_DELAY_MS));
    }

    #[test]
    fn a_keep_alive_takes_along_what_is_owed() {
        let mut counters = Counters::new();
        counters.handle_received(0);
        assert_eq!(counters.keep_alive(), acknowledgement("1"));
        assert_eq!(counters.poll_timeout(), None);
        assert_eq!(counters.keep_alive(), Ping::default());
    }

    #[test]
    fn an_acknowledgement_is_taken_from_among_other_pairs() {
        let mut counters = counters_that_sent(3);
        let mut ping = acknowledgement("2");
        ping.pairs.insert(0, ("status".into(), "1".into()));
        assert_eq!(counters.handle_ping(&ping), Ok(()));
        assert_eq!(counters.acknowledged(), 2);
    }

    #[test]
    fn other_pings_are_ignored() {
        let mut counters = counters_that_sent(3);
        assert_eq!(counters.handle_ping(&Ping::default()), Ok(()));
        assert_eq!(counters.handle_ping(&Ping { pairs: vec![("echo".into(), "7".into())] }), Ok(()));
        assert_eq!(counters.acknowledged(), 0);
    }

    #[test]
    fn the_same_acknowledgement_may_come_twice() {
        let mut counters = counters_that_sent(3);
        assert_eq!(counters.handle_ping(&acknowledgement("3")), Ok(()));
        assert_eq!(counters.handle_ping(&acknowledgement("3")), Ok(()));
        assert_eq!(counters.acknowledged(), 3);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut counters = counters_that_sent(3);
        let expected = SessionError::AheadOfUs { acknowledged: 4, sent: 3 };
        assert_eq!(counters.handle_ping(&acknowledgement("4")), Err(expected));
        assert_eq!(counters.acknowledged(), 0);
    }

    #[test]
    fn an_acknowledgement_cannot_be_taken_back() {
        let mut counters = counters_that_sent(3);
        counters.handle_ping(&acknowledgement("2")).unwrap();
        let expected = SessionError::Backwards { acknowledged: 1, before: 2 };
        assert_eq!(counters.handle_ping(&acknowledgement("1")), Err(expected));
        assert_eq!(counters.acknowledged(), 2);
    }

    #[test]
    fn an_acknowledgement_must_be_a_number() {
        for value in ["", "+1", "-1", " 1", "1.0", "one", "18446744073709551616"] {
            let mut counters = counters_that_sent(3);
            assert_eq!(counters.handle_ping(&acknowledgement(value)), Err(SessionError::NoNumber), "{value:?}");
        }
    }
}
