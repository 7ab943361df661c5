//! Hearing: which news of a node all its peers have heard, so that what it has said is so everywhere. Pure.
//!
//! ```text
//!  news ──► round: told to all peers, a beat behind it ──► each peer answers, or goes by nothing old any more ──► heard
//! ```
//!
//! A peer goes by what it was told before for as long as its last question that this node has answered is younger than
//! [`INTEREST_STALE_MS`](crate::limits::INTEREST_STALE_MS). So a peer that does not hear is waited for that long and no
//! longer: from then on it takes this node to want everything.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Peer that goes by what it was told before a round, until it has heard the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited<P> {
    /// Peer that is waited for.
    pub peer: P,
    /// Number of the first beat behind the round.
    pub beat: u64,
    /// Time from which on it goes by nothing that it was told before.
    pub until_ms: u64,
}

/// News that was told at one moment.
#[derive(Debug)]
struct Round<K, P> {
    number: u64,
    keys: Vec<K>,
    awaited: Vec<Awaited<P>>,
}

/// News of a node by key, and which of it all peers have heard.
#[derive(Debug)]
pub struct Hearing<K, P> {
    /// News that is still to be told, in the round `next`.
    news: Vec<K>,
    next: u64,
    /// Rounds that some peer may not have heard, oldest first.
    told: VecDeque<Round<K, P>>,
    /// News that some peer may not have heard, with its newest round.
    unheard: HashMap<K, u64>,
}

impl<K, P> Default for Hearing<K, P> {
    fn default() -> Self {
        Self { news: Vec::new(), next: 0, told: VecDeque::new(), unheard: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, P: PartialEq> Hearing<K, P> {
    /// Notes news, to be told in the next round.
    pub fn note(&mut self, key: K) {
        self.news.push(key);
        self.unheard.insert(key, self.next);
    }

    /// Whether there is news that was not told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Takes the news, to be told now, as a round; [`told`](Self::told) is to follow.
    pub fn take_news(&mut self) -> (u64, Vec<K>) {
        let number = self.next;
        self.next += 1;
        (number, std::mem::take(&mut self.news))
    }

    /// Notes that a round was told, and who goes by older knowledge until it is heard. Rounds are told in their order.
    pub fn told(&mut self, number: u64, keys: Vec<K>, awaited: Vec<Awaited<P>>) {
        self.told.push_back(Round { number, keys, awaited });
    }

    /// Round that has to be heard for this news; `None` when all peers know it.
    #[must_use]
    pub fn round_of(&self, key: &K) -> Option<u64> {
        self.unheard.get(key).copied()
    }

    /// Newest round with news that some peer may not have heard, told or still to be told.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        if self.has_news() { Some(self.next) } else { self.told.back().map(|round| round.number) }
    }

    /// Number of keys that some peer may not have heard.
    #[must_use]
    pub fn unheard(&self) -> usize {
        self.unheard.len()
    }

    /// Takes the answer of a peer to a beat: it has heard all that was told before.
    pub fn answered(&mut self, peer: &P, beat: u64) {
        self.forgive(|awaited| awaited.peer == *peer && awaited.beat <= beat);
    }

    /// Waits for a peer no more: it is gone with certainty.
    pub fn gone(&mut self, peer: &P) {
        self.forgive(|awaited| awaited.peer == *peer);
    }

    fn forgive(&mut self, is_done: impl Fn(&Awaited<P>) -> bool) {
        for round in &mut self.told {
            round.awaited.retain(|awaited| !is_done(awaited));
        }
    }

    /// Forgets what all have heard by now; returns the number of the oldest round that is still open: all before it are
    /// heard.
    pub fn settle(&mut self, now_ms: u64) -> u64 {
        while let Some(first) = self.told.front_mut() {
            first.awaited.retain(|awaited| awaited.until_ms > now_ms);
            if !first.awaited.is_empty() {
                return first.number;
            }
            let Some(heard) = self.told.pop_front() else { break };
            for key in heard.keys {
                // It may have been told again since.
                if self.unheard.get(&key).is_some_and(|round| *round == heard.number) {
                    self.unheard.remove(&key);
                }
            }
        }
        self.next
    }

    /// Time at which the oldest open round is heard at the latest.
    #[must_use]
    pub fn heard_at_ms(&self) -> Option<u64> {
        self.told.front()?.awaited.iter().map(|awaited| awaited.until_ms).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rooms = Hearing<&'static str, &'static str>;

    fn awaiting(peers: &[(&'static str, u64, u64)]) -> Vec<Awaited<&'static str>> {
        peers.iter().map(|&(peer, beat, until_ms)| Awaited { peer, beat, until_ms }).collect()
    }

    fn tell(hearing: &mut Rooms, awaited: &[(&'static str, u64, u64)]) -> u64 {
        let (number, keys) = hearing.take_news();
        hearing.told(number, keys, awaiting(awaited));
        number
    }

    #[test]
    fn news_is_heard_when_every_peer_has_answered_a_beat_behind_it() {
        let mut hearing = Rooms::default();
        hearing.note("kitchen");
        assert_eq!((hearing.round_of(&"kitchen"), hearing.newest()), (Some(0), Some(0)), "even before it is told");
        tell(&mut hearing, &[("b", 7, 900), ("c", 3, 900)]);
        hearing.answered(&"b", 7);
        hearing.answered(&"c", 2);
        assert_eq!((hearing.settle(100), hearing.round_of(&"kitchen")), (0, Some(0)), "that beat was asked before");
        hearing.answered(&"c", 4);
        assert_eq!((hearing.settle(100), hearing.round_of(&"kitchen"), hearing.newest()), (1, None, None));
    }

    #[test]
    fn a_peer_that_does_not_hear_is_waited_for_until_it_believes_nothing_old() {
        let mut hearing = Rooms::default();
        hearing.note("kitchen");
        tell(&mut hearing, &[("b", 7, 900), ("c", 3, 700)]);
        assert_eq!(hearing.heard_at_ms(), Some(900));
        assert_eq!(hearing.settle(899), 0);
        assert_eq!((hearing.settle(900), hearing.unheard()), (1, 0));
    }

    #[test]
    fn nobody_waits_where_nobody_goes_by_old_knowledge() {
        let mut hearing = Rooms::default();
        hearing.note("kitchen");
        assert_eq!(tell(&mut hearing, &[]), 0);
        assert_eq!((hearing.settle(0), hearing.unheard(), hearing.heard_at_ms()), (1, 0, None));
    }

    #[test]
    fn rounds_are_heard_in_their_order_and_news_that_comes_again_is_of_its_newest() {
        let mut hearing = Rooms::default();
        hearing.note("kitchen");
        tell(&mut hearing, &[("b", 1, 900)]);
        hearing.note("hall");
        hearing.note("kitchen");
        tell(&mut hearing, &[("b", 2, 950)]);
        hearing.note("garden");
        assert_eq!([hearing.round_of(&"kitchen"), hearing.round_of(&"garden")], [Some(1), Some(2)]);
        hearing.answered(&"b", 1);
        assert_eq!((hearing.settle(0), hearing.round_of(&"kitchen")), (1, Some(1)));
        hearing.gone(&"b");
        assert_eq!((hearing.settle(0), hearing.round_of(&"kitchen"), hearing.newest()), (2, None, Some(2)));
    }
}
