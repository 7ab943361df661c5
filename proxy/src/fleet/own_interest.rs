//! Subscriptions of this node: for all hubs, which messages of other nodes have receivers here.
//!
//! Shards count sets, not members. Anything that reveals the presence of a set's first member (an ack, a handshake
//! response) waits until the other nodes have confirmed the subscription.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};
use trunkline_protocol::fleet::{AckTracker, Awaited, HubInterest, InterestMap, Wanted};

use crate::engine::shard::{InterestHold, SetInterest};
use crate::engine::upstream::HubIndex;

#[derive(Debug, Default)]
pub(crate) struct OwnInterest {
    hubs: ArcSwap<Vec<Arc<HubInterest>>>,
    reported: Mutex<ReportedInterest>,
    /// Number of buckets not confirmed by all nodes; usually 0.
    unacknowledged: AtomicUsize,
    has_news: Notify,
}

/// Changes for the other nodes, and actions that wait for their confirmation.
#[derive(Default)]
struct ReportedInterest {
    ack_tracker: AckTracker<(HubIndex, u16), Arc<str>>,
    /// Actions that wait for a round to be confirmed, by round number.
    waiting: BTreeMap<u64, Vec<Act>>,
    /// Set when the node has left the fleet and stops sending.
    is_over: bool,
}

type Act = Box<dyn FnOnce() + Send>;

impl fmt::Debug for ReportedInterest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportedInterest")
            .field("ack_tracker", &self.ack_tracker)
            .field("is_over", &self.is_over)
            .finish()
    }
}

/// Sets that count as having a member until this is dropped.
#[derive(Debug)]
struct HeldSets {
    interest: Arc<OwnInterest>,
    hub: HubIndex,
    buckets: Vec<u16>,
}

impl OwnInterest {
    fn enter_bucket(&self, hub: HubIndex, bucket: u16) {
        let counts = self.hub(hub);
        // Under the lock, so that a caller that finds the bucket present also finds it unconfirmed.
        let mut reported = self.reported();
        if counts.enter(bucket) && !reported.is_over {
            reported.ack_tracker.note_key((hub, bucket));
            self.unacknowledged.store(reported.ack_tracker.unacknowledged(), Ordering::Release);
            self.has_news.notify_one();
        }
    }

    fn hold(self: &Arc<Self>, hub: HubIndex, sets: &[Wanted<'_>]) -> HeldSets {
        let buckets: Vec<_> = sets.iter().map(|set| set.bucket()).collect();
        buckets.iter().for_each(|&bucket| self.enter_bucket(hub, bucket));
        HeldSets { interest: self.clone(), hub, buckets }
    }

    /// Runs an action when the other nodes have confirmed all current changes.
    pub(crate) fn when_all_acknowledged(&self, act: impl FnOnce() + Send + 'static) {
        self.when(|ack_tracker| ack_tracker.newest(), act);
    }

    fn when(
        &self,
        round: impl FnOnce(&AckTracker<(HubIndex, u16), Arc<str>>) -> Option<u64>,
        act: impl FnOnce() + Send + 'static,
    ) {
        let mut reported = self.reported();
        match round(&reported.ack_tracker).filter(|_| !reported.is_over) {
            Some(round) => reported.waiting.entry(round).or_default().push(Box::new(act)),
            None => {
                drop(reported);
                act();
            }
        }
    }

    /// Waits for new changes. Cancel-safe.
    pub(crate) async fn has_news(&self) {
        self.has_news.notified().await;
    }

    /// Takes the changes since the last call as a round, to be followed by [`mark_sent`](Self::mark_sent). `None`
    /// if there are no changes.
    #[must_use]
    pub(crate) fn take_news(&self) -> Option<(u64, Vec<(HubIndex, u16)>)> {
        let mut reported = self.reported();
        reported.ack_tracker.has_news().then(|| reported.ack_tracker.take_news())
    }

    /// Records that a round was sent, and the nodes that have to confirm it.
    pub(crate) fn mark_sent(&self, round: u64, keys: Vec<(HubIndex, u16)>, awaited: Vec<Awaited<Arc<str>>>) {
        self.reported().ack_tracker.mark_sent(round, keys, awaited);
    }

    /// Handles a node's reply to a heartbeat.
    pub(crate) fn answered(&self, boot: &Arc<str>, beat: u64, now_ms: u64) {
        if self.unacknowledged.load(Ordering::Acquire) > 0 {
            self.reported().ack_tracker.answered(boot, beat);
            self.settle(now_ms);
        }
    }

    /// Stops waiting for a node that is certainly gone.
    pub(crate) fn gone(&self, boot: &Arc<str>, now_ms: u64) {
        self.reported().ack_tracker.gone(boot);
        self.settle(now_ms);
    }

    /// Runs the actions of confirmed rounds. Returns the latest time for the next call.
    pub(crate) fn settle(&self, now_ms: u64) -> Option<u64> {
        let mut reported = self.reported();
        let open = reported.ack_tracker.settle(now_ms);
        self.unacknowledged.store(reported.ack_tracker.unacknowledged(), Ordering::Release);
        let later = reported.waiting.split_off(&open);
        let acknowledged = std::mem::replace(&mut reported.waiting, later);
        let next_ms = reported.ack_tracker.acknowledged_at_ms();
        drop(reported);
        acknowledged.into_values().flatten().for_each(|act| act());
        next_ms
    }

    /// Ends all waits when the node leaves the fleet.
    pub(crate) fn end_waits(&self) {
        let mut reported = self.reported();
        reported.is_over = true;
        let waiting = std::mem::take(&mut reported.waiting);
        self.unacknowledged.store(0, Ordering::Release);
        drop(reported);
        waiting.into_values().flatten().for_each(|act| act());
    }

    pub(crate) fn map(&self, hub: HubIndex) -> InterestMap {
        self.hubs.load().get(hub.get()).map(|hub| hub.map()).unwrap_or_default()
    }

    /// Removes subscriptions without members. Returns the hubs with removals.
    pub(crate) fn sweep(&self) -> Vec<HubIndex> {
        let hubs = self.hubs.load();
        let swept = hubs.iter().enumerate().filter(|(_, hub)| hub.sweep());
        swept.filter_map(|(index, _)| Some(HubIndex::from(u32::try_from(index).ok()?))).collect()
    }

    fn hub(&self, hub: HubIndex) -> Arc<HubInterest> {
        if let Some(known) = self.hubs.load().get(hub.get()) {
            return known.clone();
        }
        // Shards that race find the same tables; the loser's are dropped.
        self.hubs.rcu(|hubs| {
            let missing = (hub.get() + 1).saturating_sub(hubs.len());
            let new = (0..missing).map(|_| Arc::<HubInterest>::default());
            hubs.iter().cloned().chain(new).collect::<Vec<_>>()
        });
        self.hubs.load().get(hub.get()).cloned().unwrap_or_default()
    }

    fn reported(&self) -> MutexGuard<'_, ReportedInterest> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SetInterest for OwnInterest {
    fn enter(&self, hub: HubIndex, set: Wanted<'_>) {
        self.enter_bucket(hub, set.bucket());
    }

    fn leave(&self, hub: HubIndex, set: Wanted<'_>) {
        self.hub(hub).leave(set.bucket());
    }

    fn announce(
        self: Arc<Self>,
        hub: HubIndex,
        sets: &[Wanted<'_>],
    ) -> Pin<Box<dyn Future<Output = Box<dyn InterestHold>> + Send>> {
        let held = self.hold(hub, sets);
        Box::pin(async move {
            held.acknowledged().await;
            Box::new(held) as Box<dyn InterestHold>
        })
    }

    fn when_confirmed(&self, hub: HubIndex, set: Wanted<'_>, act: Box<dyn FnOnce() + Send>) {
        if self.unacknowledged.load(Ordering::Acquire) == 0 {
            return act();
        }
        self.when(|ack_tracker| ack_tracker.round_of(&(hub, set.bucket())), act);
    }

    fn has_sets(&self, hub: HubIndex) -> bool {
        !self.map(hub).is_empty()
    }
}

impl HeldSets {
    /// Waits until the other nodes have confirmed the sets.
    async fn acknowledged(&self) {
        if self.interest.unacknowledged.load(Ordering::Acquire) == 0 {
            return;
        }
        let (act, acknowledged) = oneshot::channel();
        let newest = |ack_tracker: &AckTracker<(HubIndex, u16), Arc<str>>| {
            self.buckets.iter().filter_map(|&bucket| ack_tracker.round_of(&(self.hub, bucket))).max()
        };
        self.interest.when(newest, move || act.send(()).unwrap_or_default());
        // Never fails: waiting actions run when the node leaves, at the latest.
        drop(acknowledged.await);
    }
}

impl InterestHold for HeldSets {}

impl Drop for HeldSets {
    fn drop(&mut self) {
        let counts = self.interest.hub(self.hub);
        self.buckets.iter().for_each(|&bucket| counts.leave(bucket));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const HUB: u32 = 2;

    fn news(interest: &OwnInterest) -> Vec<(HubIndex, u16)> {
        let Some((round, keys)) = interest.take_news() else { return Vec::new() };
        interest.mark_sent(round, keys.clone(), Vec::new());
        interest.settle(0);
        keys
    }

    #[test]
    fn a_set_is_reported_once_until_a_sweep_removes_it() {
        let (interest, hub) = (OwnInterest::default(), HubIndex::from(HUB));
        let (one, other) = (Wanted::Group("one"), Wanted::User("other"));
        for _ in 0..3 {
            interest.enter(hub, one);
            interest.leave(hub, one);
        }
        interest.enter(hub, other);
        let buckets = [Wanted::Group("one").bucket(), Wanted::User("other").bucket()];
        assert_eq!(news(&interest), buckets.map(|bucket| (hub, bucket)));
        assert!(buckets.iter().all(|&bucket| interest.map(hub).contains(bucket)));
        assert_eq!(interest.sweep(), [hub]);
        assert_eq!(buckets.map(|bucket| interest.map(hub).contains(bucket)), [false, true]);
        assert!(interest.sweep().is_empty() && news(&interest).is_empty());
        interest.enter(hub, one);
        assert_eq!(news(&interest), [(hub, buckets[0])], "it is reported again");
    }

    #[test]
    fn only_actions_for_new_sets_wait_and_not_for_departed_nodes() {
        let (interest, hub) = (OwnInterest::default(), HubIndex::from(HUB));
        let (old, new) = (Wanted::Group("old"), Wanted::Group("new"));
        interest.enter(hub, old);
        news(&interest);
        interest.enter(hub, new);
        let said = ["old", "new", "all"].map(|_| Arc::new(AtomicBool::new(false)));
        let say = |at: usize| {
            let said = said[at].clone();
            move || said.store(true, Ordering::Relaxed)
        };
        interest.when_confirmed(hub, old, Box::new(say(0)));
        interest.when_confirmed(hub, new, Box::new(say(1)));
        interest.when_all_acknowledged(say(2));
        let what = || [0, 1, 2].map(|at: usize| said[at].load(Ordering::Relaxed));
        assert_eq!(what(), [true, false, false]);
        let (round, keys) = interest.take_news().unwrap();
        let [one, other] = ["one", "other"].map(Arc::<str>::from);
        let awaited = [&one, &other].map(|peer| Awaited { peer: peer.clone(), beat: 0, until_ms: 50 });
        interest.mark_sent(round, keys, awaited.to_vec());
        interest.answered(&one, 0, 10);
        assert_eq!(what(), [true, false, false]);
        interest.gone(&other, 10);
        assert_eq!(what(), [true; 3]);
    }

    #[tokio::test]
    async fn a_hold_keeps_subscriptions_until_a_member_joins() {
        let (interest, hub) = (Arc::new(OwnInterest::default()), HubIndex::from(HUB));
        let ann = Wanted::User("ann");
        let hold = interest.hold(hub, &[Wanted::Everyone, ann]);
        assert_eq!(news(&interest).len(), 2);
        hold.acknowledged().await;
        interest.enter(hub, ann);
        drop(hold);
        assert_eq!(interest.sweep(), [hub]);
        assert!(interest.map(hub).contains(ann.bucket()) && !interest.map(hub).contains(Wanted::Everyone.bucket()));
    }

    #[tokio::test]
    async fn no_action_waits_after_the_node_has_left_the_fleet() {
        let (interest, hub) = (Arc::new(OwnInterest::default()), HubIndex::from(HUB));
        let hold = interest.hold(hub, &[Wanted::Everyone]);
        let waiting = hold.acknowledged();
        interest.end_waits();
        waiting.await;
        interest.hold(hub, &[Wanted::Group("later")]).acknowledged().await;
    }
}
