//! Tracks which updates of a node all its peers have acknowledged, and so apply everywhere. Pure.
//!
//! ```text
//!  updates ──► round: sent to all peers, then a beat ──► each peer answers, or its old state expires ──► acknowledged
//! ```
//!
//! A peer relies on its old state while the last beat answered by this node is younger than
//! [`INTEREST_STALE_MS`](crate::limits::INTEREST_STALE_MS). An unresponsive peer is waited for only that long; then it
//! assumes that this node wants everything.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Peer that relies on its state from before a round until it acknowledges the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited<P> {
    /// Peer to wait for.
    pub peer: P,
    /// Number of the first beat after the round.
    pub beat: u64,
    /// Time at which the peer's old state expires.
    pub until_ms: u64,
}

#[derive(Debug)]
struct Round<K, P> {
    number: u64,
    keys: Vec<K>,
    awaited: Vec<Awaited<P>>,
}

/// Updates of a node by key, and whether all peers have acknowledged them.
#[derive(Debug)]
pub struct AckTracker<K, P> {
    /// Updates to be sent in the round `next`.
    news: Vec<K>,
    next: u64,
    /// Sent rounds that some peer may not have acknowledged, oldest first.
    sent: VecDeque<Round<K, P>>,
    /// Newest round of each update that some peer may not have acknowledged.
    unacknowledged: HashMap<K, u64>,
}

impl<K, P> Default for AckTracker<K, P> {
    fn default() -> Self {
        Self { news: Vec::new(), next: 0, sent: VecDeque::new(), unacknowledged: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, P: PartialEq> AckTracker<K, P> {
    /// Queues an update for the next round.
    pub fn note_key(&mut self, key: K) {
        self.news.push(key);
        self.unacknowledged.insert(key, self.next);
    }

    /// Whether updates are waiting to be sent.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Takes the queued updates as a round to send now. The caller then calls [`mark_sent`](Self::mark_sent).
    pub fn take_news(&mut self) -> (u64, Vec<K>) {
        let number = self.next;
        self.next += 1;
        (number, std::mem::take(&mut self.news))
    }

    /// Records that a round was sent, and which peers still rely on older state. Rounds must be sent in order.
    pub fn mark_sent(&mut self, number: u64, keys: Vec<K>, awaited: Vec<Awaited<P>>) {
        self.sent.push_back(Round { number, keys, awaited });
    }

    /// Round that has to be acknowledged for this update; `None` if all peers have acknowledged it.
    #[must_use]
    pub fn round_of(&self, key: &K) -> Option<u64> {
        self.unacknowledged.get(key).copied()
    }

    /// Newest unacknowledged round, sent or queued.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        if self.has_news() { Some(self.next) } else { self.sent.back().map(|round| round.number) }
    }

    /// Number of unacknowledged keys.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Handles a peer's answer to a beat, which acknowledges everything sent before it.
    pub fn answered(&mut self, peer: &P, beat: u64) {
        self.forgive(|awaited| awaited.peer == *peer && awaited.beat <= beat);
    }

    /// Stops waiting for a peer that is certainly gone.
    pub fn gone(&mut self, peer: &P) {
        self.forgive(|awaited| awaited.peer == *peer);
    }

    fn forgive(&mut self, is_done: impl Fn(&Awaited<P>) -> bool) {
        for round in &mut self.sent {
            round.awaited.retain(|awaited| !is_done(awaited));
        }
    }

    /// Removes fully acknowledged updates. Returns the oldest open round; all earlier ones are acknowledged.
    pub fn settle(&mut self, now_ms: u64) -> u64 {
        while let Some(first) = self.sent.front_mut() {
            first.awaited.retain(|awaited| awaited.until_ms > now_ms);
            if !first.awaited.is_empty() {
                return first.number;
            }
            let Some(acknowledged) = self.sent.pop_front() else { break };
            for key in acknowledged.keys {
                // The key may have been sent again since.
                if self.unacknowledged.get(&key).is_some_and(|round| *round == acknowledged.number) {
                    self.unacknowledged.remove(&key);
                }
            }
        }
        self.next
    }

    /// Latest time at which the oldest open round is acknowledged or expires.
    #[must_use]
    pub fn acknowledged_at_ms(&self) -> Option<u64> {
        self.sent.front()?.awaited.iter().map(|awaited| awaited.until_ms).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rooms = AckTracker<&'static str, &'static str>;

    fn awaiting(peers: &[(&'static str, u64, u64)]) -> Vec<Awaited<&'static str>> {
        peers.iter().map(|&(peer, beat, until_ms)| Awaited { peer, beat, until_ms }).collect()
    }

    fn send(ack_tracker: &mut Rooms, awaited: &[(&'static str, u64, u64)]) -> u64 {
        let (number, keys) = ack_tracker.take_news();
        ack_tracker.mark_sent(number, keys, awaiting(awaited));
        number
    }

    #[test]
    fn an_update_is_acknowledged_once_every_peer_has_answered_a_later_beat() {
        let mut ack_tracker = Rooms::default();
        ack_tracker.note_key("kitchen");
        assert_eq!(
            (ack_tracker.round_of(&"kitchen"), ack_tracker.newest()),
            (Some(0), Some(0)),
            "even before it is sent"
        );
        send(&mut ack_tracker, &[("b", 7, 900), ("c", 3, 900)]);
        ack_tracker.answered(&"b", 7);
        ack_tracker.answered(&"c", 2);
        assert_eq!(
            (ack_tracker.settle(100), ack_tracker.round_of(&"kitchen")),
            (0, Some(0)),
            "that beat was asked before"
        );
        ack_tracker.answered(&"c", 4);
        assert_eq!((ack_tracker.settle(100), ack_tracker.round_of(&"kitchen"), ack_tracker.newest()), (1, None, None));
    }

    #[test]
    fn an_unresponsive_peer_is_awaited_until_its_old_state_expires() {
        let mut ack_tracker = Rooms::default();
        ack_tracker.note_key("kitchen");
        send(&mut ack_tracker, &[("b", 7, 900), ("c", 3, 700)]);
        assert_eq!(ack_tracker.acknowledged_at_ms(), Some(900));
        assert_eq!(ack_tracker.settle(899), 0);
        assert_eq!((ack_tracker.settle(900), ack_tracker.unacknowledged()), (1, 0));
    }

    #[test]
    fn without_peers_an_update_is_acknowledged_immediately() {
        let mut ack_tracker = Rooms::default();
        ack_tracker.note_key("kitchen");
        assert_eq!(send(&mut ack_tracker, &[]), 0);
        assert_eq!(
            (ack_tracker.settle(0), ack_tracker.unacknowledged(), ack_tracker.acknowledged_at_ms()),
            (1, 0, None)
        );
    }

    #[test]
    fn rounds_are_acknowledged_in_order_and_a_repeated_update_belongs_to_the_newest() {
        let mut ack_tracker = Rooms::default();
        ack_tracker.note_key("kitchen");
        send(&mut ack_tracker, &[("b", 1, 900)]);
        ack_tracker.note_key("hall");
        ack_tracker.note_key("kitchen");
        send(&mut ack_tracker, &[("b", 2, 950)]);
        ack_tracker.note_key("garden");
        assert_eq!([ack_tracker.round_of(&"kitchen"), ack_tracker.round_of(&"garden")], [Some(1), Some(2)]);
        ack_tracker.answered(&"b", 1);
        assert_eq!((ack_tracker.settle(0), ack_tracker.round_of(&"kitchen")), (1, Some(1)));
        ack_tracker.gone(&"b");
        assert_eq!((ack_tracker.settle(0), ack_tracker.round_of(&"kitchen"), ack_tracker.newest()), (2, None, Some(2)));
    }
}
