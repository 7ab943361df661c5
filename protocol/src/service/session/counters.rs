//! Frame counters of a session in both directions, and the acknowledgements between its ends.
//!
//! ```text
//!  sent                                        received
//!
//!   1 ──────── acknowledged ──────── sent       1 ────── acknowledged ────── received
//!   └─ received by peer ┘└ in flight ┘          └─ known to peer ─┘└─ owed ─┘
//!      ▲ handle_ping        ▲ handle_sent          ▲ poll_ping,     ▲ handle_received
//!                                                    keep_alive
//!
//!                   handle_received                        handle_received
//!   Nothing owed ─────────────────────► Due 100 ms after ──┐ (due as before, or immediately
//!        ▲                              the first frame ◄──┘  when many bytes are owed)
//!        └─── poll_ping once due, keep_alive ────┘
//! ```
//!
//! Handshake frames and pings are not counted: the driver of the link does not pass them in.

use bytestring::ByteString;

use super::SessionError;
use crate::limits::ACKNOWLEDGE_DELAY_MS;
use crate::service::Ping;

/// Key of the acknowledgement pair in a service ping. The value is the decimal number of the last received frame.
/// Azure's SDK ignores unknown pairs.
pub const ACKNOWLEDGE_KEY: &str = "trunkline-ack";

/// Key of the pair in a ping that its receiver sends back, as in Azure's service and SDK.
pub const ECHO_KEY: &str = "echo";

/// Key of the pair in a ping with which a proxy reports a crashed proxy to app servers. The value is that proxy's boot
/// id.
pub const CRASHED_NODE_KEY: &str = "trunkline-crashed";

/// Counters of one session, or of a link without one.
#[derive(Debug, Default)]
pub struct Counters {
    /// Number of frames sent, which is the number of the last one.
    sent: u64,
    /// Last sent frame that the peer has received.
    acknowledged: u64,
    /// Number of frames received, which is the number of the last one.
    received: u64,
    owed: Owed,
    owed_bytes: usize,
}

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

    /// Counts a sent frame and returns its number, from 1.
    pub fn handle_sent(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Counts a frame that was received and queued at its connection, to be acknowledged.
    pub fn handle_received(&mut self, now_ms: u64) {
        self.received += 1;
        if let Owed::Nothing = self.owed {
            self.owed = Owed::Due { at_ms: now_ms.saturating_add(ACKNOWLEDGE_DELAY_MS) };
        }
    }

    /// Records that frames up to `number` were sent, perhaps again.
    pub(super) fn sent_up_to(&mut self, number: u64) {
        self.sent = self.sent.max(number);
    }

    /// Records that frames up to `number` are taken. From `prompt_bytes` on, the acknowledgement is due immediately.
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

    /// Records that the upgrade sent the number of received frames to the peer.
    pub(super) fn note_sent_in_upgrade(&mut self, number: u64) {
        if number >= self.received {
            (self.owed, self.owed_bytes) = (Owed::Nothing, 0);
        }
    }

    /// Acknowledges all frames up to this one. Fails if the peer can't have them, or withdraws an acknowledgement.
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

    /// Handles an acknowledgement in a ping, if any. Fails if the acknowledgement is inconsistent; the driver has to
    /// drop the link.
    pub fn handle_ping(&mut self, ping: &Ping) -> Result<(), SessionError> {
        let Some(value) = ping.get(ACKNOWLEDGE_KEY) else {
            return Ok(());
        };
        self.acknowledge(number(value)?)
    }

    /// Time at which [`poll_ping`](Self::poll_ping) will return an acknowledgement; `None` if nothing is owed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.owed {
            Owed::Nothing => None,
            Owed::Due { at_ms } => Some(at_ms),
        }
    }

    /// Returns the ping with the acknowledgement if it is due.
    pub fn poll_ping(&mut self, now_ms: u64) -> Option<Ping> {
        match self.owed {
            Owed::Due { at_ms } if at_ms <= now_ms => Some(self.keep_alive()),
            _ => None,
        }
    }

    /// Returns a keep-alive with the owed acknowledgement, due or not.
    pub fn keep_alive(&mut self) -> Ping {
        self.owed_bytes = 0;
        match std::mem::take(&mut self.owed) {
            Owed::Nothing => Ping::default(),
            Owed::Due { .. } => {
                Ping { pairs: vec![(ByteString::from_static(ACKNOWLEDGE_KEY), self.received.to_string().into())] }
            }
        }
    }

    /// Number of frames sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Number of frames received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Number of frames acknowledged by the peer.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

/// Parses digits only: `u64::from_str` also accepts a plus sign.
pub(super) fn number(value: &str) -> Result<u64, SessionError> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SessionError::NoNumber);
    }
    value.parse().map_err(|_| SessionError::NoNumber)
}

/// Numbering of incoming frames, which drops duplicates.
///
/// Frames carry no number; both ends count. The numbering belongs to the link's reader, needs no lock, and lives as
/// long as the session. [`attach`](Incoming::attach) sets the point from which the peer replays on a new socket.
///
/// ```text
///  sent in the upgrade: 7          the new socket brings   8  9  10  11
///  handed out so far:   9                                  ─duplicates─  new
/// ```
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// Number of the last frame on the current socket.
    at: u64,
    handed_out: u64,
}

impl Incoming {
    /// Creates the numbering of a session with all frames up to `received` taken.
    #[must_use]
    pub fn after(received: u64) -> Self {
        Self { at: received, handed_out: received }
    }

    /// Starts with a new socket: the peer continues after this frame.
    pub fn attach(&mut self, told: u64) {
        self.at = told;
    }

    /// Numbers a counted frame. Returns `None` for a duplicate, which the caller drops.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and `None` is no end")]
    pub fn next(&mut self) -> Option<u64> {
        self.at += 1;
        (self.at > self.handed_out).then(|| {
            self.handed_out = self.at;
            self.at
        })
    }

    /// Number of the last frame that was not a duplicate.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.handed_out
    }
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
    fn a_keep_alive_carries_the_owed_acknowledgement() {
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
    fn an_acknowledgement_may_be_repeated() {
        let mut counters = counters_that_sent(3);
        assert_eq!(counters.handle_ping(&acknowledgement("3")), Ok(()));
        assert_eq!(counters.handle_ping(&acknowledgement("3")), Ok(()));
        assert_eq!(counters.acknowledged(), 3);
    }

    #[test]
    fn an_acknowledgement_of_unsent_frames_is_refused() {
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

    #[test]
    fn numbers_begin_at_1() {
        let mut incoming = Incoming::default();
        assert_eq!((incoming.next(), incoming.next()), (Some(1), Some(2)));
    }

    #[test]
    fn replayed_frames_that_were_delivered_are_dropped() {
        let mut incoming = Incoming::default();
        while incoming.handed_out() < 9 {
            incoming.next();
        }
        incoming.attach(7);
        let numbers: Vec<_> = (0..4).map(|_| incoming.next()).collect();
        assert_eq!(numbers, [None, None, Some(10), Some(11)]);
    }

    #[test]
    fn frames_read_but_not_taken_are_delivered_to_a_new_numbering() {
        let mut incoming = Incoming::after(7);
        incoming.attach(7);
        assert_eq!(incoming.next(), Some(8));
    }
}
