//! Interest of this node: which messages of other nodes somebody here can want, for all hubs.
//!
//! Shards count sets as they come and go; nothing here waits, and nothing is done for each member.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use trunkline_protocol::fleet::{HubInterest, InterestMap, Wanted};

use crate::upstream::HubIndex;

/// Interest of this node in all hubs.
#[derive(Debug, Default)]
pub(crate) struct OwnInterest {
    hubs: ArcSwap<Vec<Arc<HubInterest>>>,
    news: Mutex<Vec<(HubIndex, u16)>>,
    has_news: Notify,
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

    /// Whether there are hashes that are new since the last call of [`take_news`](Self::take_news).
    #[must_use]
    pub(crate) fn is_new(&self) -> bool {
        !self.news().is_empty()
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
}
