//! Interest of this node: which messages of other nodes somebody here can want, as hashes of the names of sets.
//!
//! ```text
//!  first member ──► count 0 → 1 ──► told? ─ no ──► news ──► other nodes, at once
//!  last member  ──► count 1 → 0                 ┌─────────► other nodes, with the next sweep
//!                        sweep: told, count 0 ──┘
//! ```
//!
//! Shards count sets as they come and go; nothing here waits, and nothing is done for each member. A hash that is told
//! stays told until a sweep, so a set that comes and goes makes no traffic.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use trunkline_protocol::fleet::{INTEREST_BUCKETS, InterestMap, Wanted};

use crate::upstream::HubIndex;

/// Interest of this node in all hubs.
#[derive(Debug, Default)]
pub(crate) struct OwnInterest {
    hubs: ArcSwap<Vec<Arc<HubInterest>>>,
    news: Mutex<Vec<(HubIndex, u16)>>,
    has_news: Notify,
}

/// Interest in one hub. All orders are sequential: an adder counts, then looks whether it is told; a sweep takes back, then
/// looks at the count. So one of them sees the other.
#[derive(Debug)]
struct HubInterest {
    /// Number of sets with each hash, over all shards.
    counts: Box<[AtomicU32]>,
    /// Hashes that other nodes have been told, a bit each.
    told: Box<[AtomicU64]>,
}

impl OwnInterest {
    /// Notes that a set has its first member on a shard.
    pub(super) fn enter(&self, hub: HubIndex, set: Wanted<'_>) {
        let bucket = set.bucket();
        if self.hub(hub).enter(bucket) {
            self.news().push((hub, bucket));
            self.has_news.notify_one();
        }
    }

    /// Notes that a set has lost its last member on a shard.
    pub(super) fn leave(&self, hub: HubIndex, set: Wanted<'_>) {
        self.hub(hub).leave(set.bucket());
    }

    /// Waits until there is news since the last wait. Cancel-safe.
    pub(crate) async fn has_news(&self) {
        self.has_news.notified().await;
    }

    /// Takes the hashes that are new since the last call.
    #[must_use]
    pub(crate) fn take_news(&self) -> Vec<(HubIndex, u16)> {
        std::mem::take(&mut *self.news())
    }

    /// Returns all that is told of a hub.
    #[must_use]
    pub(crate) fn map(&self, hub: HubIndex) -> InterestMap {
        self.hubs.load().get(hub.get()).map(|hub| hub.map()).unwrap_or_default()
    }

    /// Takes back what has no member any more; returns hubs in which there was something.
    #[must_use]
    pub(crate) fn sweep(&self) -> Vec<HubIndex> {
        let hubs = self.hubs.load();
        let swept = hubs.iter().enumerate().filter(|(_, hub)| hub.sweep());
        swept.filter_map(|(index, _)| Some(HubIndex::from(u32::try_from(index).ok()?))).collect()
    }

    fn hub(&self, hub: HubIndex) -> Arc<HubInterest> {
        if let Some(known) = self.hubs.load().get(hub.get()) {
            return known.clone();
        }
        // Two shards that come at once find the same tables: those that lost the race are dropped.
        self.hubs.rcu(|hubs| {
            let missing = (hub.get() + 1).saturating_sub(hubs.len());
            let new = (0..missing).map(|_| Arc::<HubInterest>::default());
            hubs.iter().cloned().chain(new).collect::<Vec<_>>()
        });
        self.hubs.load().get(hub.get()).cloned().unwrap_or_default()
    }

    fn news(&self) -> MutexGuard<'_, Vec<(HubIndex, u16)>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for HubInterest {
    fn default() -> Self {
        Self {
            counts: (0..INTEREST_BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            told: (0..INTEREST_BUCKETS / u64::BITS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl HubInterest {
    /// Counts a set; whether its hash is now to be told.
    fn enter(&self, bucket: u16) -> bool {
        let was = self.counts.get(usize::from(bucket)).map(|count| count.fetch_add(1, Ordering::SeqCst));
        was == Some(0) && self.tell(bucket)
    }

    fn leave(&self, bucket: u16) {
        if let Some(count) = self.counts.get(usize::from(bucket)) {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Marks a hash as told; `false` if it was.
    fn tell(&self, bucket: u16) -> bool {
        let (word, bit) = place(bucket);
        self.told.get(word).is_some_and(|told| told.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    fn sweep(&self) -> bool {
        let mut has_changed = false;
        for (bucket, count) in (0..=u16::MAX).zip(&self.counts) {
            let (word, bit) = place(bucket);
            let Some(told) = self.told.get(word) else { break };
            if told.load(Ordering::SeqCst) & bit == 0 || count.load(Ordering::SeqCst) != 0 {
                continue;
            }
            told.fetch_and(!bit, Ordering::SeqCst);
            if count.load(Ordering::SeqCst) == 0 {
                has_changed = true;
            } else {
                told.fetch_or(bit, Ordering::SeqCst);
            }
        }
        has_changed
    }

    fn map(&self) -> InterestMap {
        let mut map = InterestMap::default();
        for (word, told) in self.told.iter().enumerate() {
            let mut bits = told.load(Ordering::SeqCst);
            while bits != 0 {
                let bucket = word * u64::BITS as usize + bits.trailing_zeros() as usize;
                map.with(u16::try_from(bucket).unwrap_or_default());
                bits &= bits - 1;
            }
        }
        map
    }
}

fn place(bucket: u16) -> (usize, u64) {
    (usize::from(bucket) / u64::BITS as usize, 1 << (u32::from(bucket) % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_told_once_until_a_sweep_takes_it_back() {
        let (interest, hub) = (OwnInterest::default(), HubIndex::from(2));
        let (one, other) = (Wanted::Group("one"), Wanted::User("other"));
        for _ in 0..3 {
            interest.enter(hub, one);
            interest.leave(hub, one);
        }
        interest.enter(hub, other);
        let buckets = [Wanted::Group("one").bucket(), Wanted::User("other").bucket()];
        assert_eq!(interest.take_news(), buckets.map(|bucket| (hub, bucket)));
        assert!(buckets.iter().all(|&bucket| interest.map(hub).contains(bucket)));
        assert_eq!(interest.sweep(), [hub]);
        assert_eq!(buckets.map(|bucket| interest.map(hub).contains(bucket)), [false, true]);
        assert!(interest.sweep().is_empty() && interest.take_news().is_empty());
        interest.enter(hub, one);
        assert_eq!(interest.take_news(), [(hub, buckets[0])], "it is told again");
    }

    #[test]
    fn shards_that_come_and_go_while_it_sweeps_leave_no_set_untold() {
        let (interest, hub) = (OwnInterest::default(), HubIndex::from(0));
        std::thread::scope(|scope| {
            for name in ["one", "other"] {
                let interest = &interest;
                scope.spawn(move || {
                    for _ in 0..200 {
                        interest.enter(hub, Wanted::Group(name));
                        interest.leave(hub, Wanted::Group(name));
                    }
                    interest.enter(hub, Wanted::Group(name));
                });
            }
            for _ in 0..20 {
                let _ = interest.sweep();
            }
        });
        let map = interest.map(hub);
        assert!(["one", "other"].iter().all(|name| map.contains(Wanted::Group(name).bucket())));
    }
}
