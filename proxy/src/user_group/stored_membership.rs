//! Memberships that also live in a store: the times they have there, and those that the store doesn't have yet.
//!
//! ```text
//!  join, leave, report of a node ─► table ─► not written yet ─ after a moment ─► store
//!                                     ▲            ▲ removed, once the store says the same
//!                                     └────────────┴──────────────────────────── store
//! ```
//!
//! Ages are relative to the store's clock, read once, so clocks of nodes don't matter.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use trunkline_protocol::id::random_bytes;

use super::left_membership::UserKey;
use super::{KeptGroups, MembershipNews, UserGroups};
use crate::shard::MembershipRefused;

/// Maximum number of changes that wait for the store. Further ones reach it with the next reading.
const UNWRITTEN_MAX: usize = 200_000;

/// Maximum difference of two ends of the same membership, as nodes measure them, in milliseconds.
const SAME_END_MS: u64 = 5_000;

/// Membership of a user in a group, with times of the store's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembership {
    /// Fleet-wide name of the hub.
    pub(crate) hub: ByteString,
    pub(crate) user: ByteString,
    pub(crate) group: ByteString,
    /// End in milliseconds since 1970; 0 once the user has left.
    pub(crate) until_ms: u64,
    /// Time of the last change in milliseconds since 1970.
    pub(crate) changed_ms: u64,
}

/// Changes that the store doesn't have yet, each with the time at which this node writes it. Each node waits for its
/// own time, so that mostly one writes what all were told.
#[derive(Debug)]
pub(super) struct UnwrittenMemberships {
    changes: HashMap<(UserKey, ByteString), Instant>,
    delay: Duration,
}

impl StoredMembership {
    /// Whether both mean the same, except for delays between nodes. Short memberships end precisely.
    pub(crate) fn is_like(&self, other: &Self, now_ms: u64) -> bool {
        match (self.until_ms.saturating_sub(now_ms), other.until_ms.saturating_sub(now_ms)) {
            (0, 0) => true,
            (0, _) | (_, 0) => false,
            (one, another) => is_same_end(one, another),
        }
    }
}

/// Whether two remaining times are of the same end.
pub(super) fn is_same_end(one_ms: u64, another_ms: u64) -> bool {
    one_ms.abs_diff(another_ms) <= SAME_END_MS.min(one_ms.max(another_ms) / 10)
}

impl UnwrittenMemberships {
    fn new() -> Self {
        let [share] = random_bytes::<1>();
        Self { changes: HashMap::new(), delay: Duration::from_millis(100 + 3 * u64::from(share)) }
    }

    pub(super) fn add(&mut self, user: &UserKey, group: &str) {
        if self.changes.len() < UNWRITTEN_MAX {
            self.changes.entry((user.clone(), group.into())).or_insert_with(|| Instant::now() + self.delay);
        }
    }

    fn remove(&mut self, user: &UserKey, group: &ByteString) {
        self.changes.remove(&(user.clone(), group.clone()));
    }
}

impl UserGroups {
    /// From now on, records what the store doesn't have.
    pub(crate) fn begin_storing(&self) {
        self.kept().unwritten.get_or_insert_with(UnwrittenMemberships::new);
    }

    /// Sets the store's clock. Later calls have no effect.
    pub(crate) fn set_store_clock(&self, store_now_ms: u64) {
        let begun_ms = i64::try_from(store_now_ms).unwrap_or(i64::MAX).saturating_sub(self.now_ms());
        let _ = self.begun_in_store_ms.compare_exchange(0, begun_ms, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Current time of the store's clock.
    pub(crate) fn store_now_ms(&self) -> u64 {
        self.in_store_ms(self.now_ms())
    }

    fn in_store_ms(&self, own_ms: i64) -> u64 {
        self.begun_in_store_ms.load(Ordering::Relaxed).saturating_add(own_ms).try_into().unwrap_or_default()
    }

    /// Checks the limits of a membership before the store has it.
    pub(crate) fn check(&self, hub: &str, user: &str, group: &str) -> Result<(), MembershipRefused> {
        self.check_names(user, group)?;
        let (kept, key) = (self.kept(), (hub.into(), user.into()));
        let is_known = kept.users.get(&key).is_some_and(|groups| groups.iter().any(|kept| kept.group == *group));
        if is_known { Ok(()) } else { self.check_room(&kept, &key, group).map(drop) }
    }

    /// Applies a value of the store, unless this node has a newer one, which is then written.
    pub(crate) fn apply(&self, stored: &StoredMembership) -> Result<MembershipNews, MembershipRefused> {
        self.check_names(&stored.user, &stored.group)?;
        let (now_ms, store_now_ms) = (self.now_ms(), self.store_now_ms());
        let begun_ms = self.begun_in_store_ms.load(Ordering::Relaxed);
        let changed_ms = i64::try_from(stored.changed_ms).unwrap_or(i64::MAX).saturating_sub(begun_ms);
        let (mut kept, key) = (self.kept(), (stored.hub.clone(), stored.user.clone()));
        let own = self.own(&kept, &key, &stored.group);
        if own.is_some_and(|own| own.changed_ms > stored.changed_ms && !own.is_like(stored, store_now_ms)) {
            kept.unwritten.iter_mut().for_each(|unwritten| unwritten.add(&key, &stored.group));
            return Ok(MembershipNews::Nothing);
        }
        kept.unwritten.iter_mut().for_each(|unwritten| unwritten.remove(&key, &stored.group));
        match stored.until_ms.saturating_sub(store_now_ms) {
            0 => {
                let gone = self.end(&mut kept, &key, Some(&stored.group));
                kept.left.note(&key, stored.group.clone(), changed_ms, now_ms);
                Ok(if gone.is_empty() { MembershipNews::Nothing } else { MembershipNews::Ended })
            }
            left_ms => self.keep(&mut kept, key, &stored.group, (Duration::from_millis(left_ms), changed_ms)),
        }
    }

    /// State of a membership here, as the store has it. `None` if nothing is known.
    fn own(&self, kept: &KeptGroups, user: &UserKey, group: &ByteString) -> Option<StoredMembership> {
        let joined = kept.users.get(user).and_then(|groups| groups.iter().find(|kept| kept.group == *group));
        let left_ms = |until: Instant| u64::try_from(until.saturating_duration_since(Instant::now()).as_millis());
        let (until_ms, changed_ms) = match joined {
            Some(kept) => (self.store_now_ms().saturating_add(left_ms(kept.until).unwrap_or(0)), kept.changed_ms),
            None => (0, kept.left.at_ms(user, group)?),
        };
        let (hub, user) = user.clone();
        Some(StoredMembership { hub, user, group: group.clone(), until_ms, changed_ms: self.in_store_ms(changed_ms) })
    }

    /// Changes that this node has to write now, at most so many.
    pub(crate) fn unwritten(&self, max: usize) -> Vec<StoredMembership> {
        let (mut kept, now) = (self.kept(), Instant::now());
        let Some(mut unwritten) = kept.unwritten.take() else { return Vec::new() };
        let due: Vec<_> = unwritten.changes.iter().filter(|(_, due)| **due <= now).take(max).collect();
        let due: Vec<_> = due.into_iter().map(|((user, group), _)| (user.clone(), group.clone())).collect();
        let mut own = Vec::with_capacity(due.len());
        for (user, group) in due {
            match self.own(&kept, &user, &group) {
                Some(stored) => own.push(stored),
                // It has expired, or is forgotten.
                None => unwritten.remove(&user, &group),
            }
        }
        kept.unwritten = Some(unwritten);
        own
    }

    /// Notes that the store has nothing of a membership that has ended here.
    pub(crate) fn note_absent(&self, own: &StoredMembership) {
        let key = (own.hub.clone(), own.user.clone());
        self.kept().unwritten.iter_mut().for_each(|unwritten| unwritten.remove(&key, &own.group));
    }

    pub(crate) fn unwritten_len(&self) -> usize {
        self.kept().unwritten.as_ref().map_or(0, |unwritten| unwritten.changes.len())
    }

    /// Notes that the store may have lost these memberships.
    pub(crate) fn mark_unwritten(&self, is_lost: impl Fn(&StoredMembership) -> bool) {
        for user in self.users() {
            let mut kept = self.kept();
            let Some(mut unwritten) = kept.unwritten.take() else { return };
            let joined = kept.users.get(&user).into_iter().flatten().map(|kept| &kept.group);
            let names: Vec<_> = joined.chain(kept.left.of(&user).map(|(group, _)| group)).cloned().collect();
            for group in names {
                if self.own(&kept, &user, &group).is_some_and(|own| is_lost(&own)) {
                    unwritten.add(&user, &group);
                }
            }
            kept.unwritten = Some(unwritten);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use trunkline_protocol::service::{ServiceMessage, UserGroupChange};

    use super::super::LEFT_REMEMBERED_MS;
    use super::super::tests::{groups_of, name, of};
    use super::*;
    use crate::shard::KeptMemberships;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn storing() -> UserGroups {
        let groups = groups_of(100);
        groups.begin_storing();
        groups.set_store_clock(NOW_MS);
        groups
    }

    fn stored(group: &str, until_ms: u64, changed_ms: u64) -> StoredMembership {
        StoredMembership { hub: name("chat"), user: name("ann"), group: name(group), until_ms, changed_ms }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_until_the_store_says_the_same() {
        let groups = storing();
        groups.join("chat", "ann", "red", 100).unwrap();
        assert_eq!((groups.unwritten(10).len(), groups.unwritten_len()), (0, 1), "other nodes may be faster");
        advance(Duration::from_secs(1)).await;
        let due = groups.unwritten(10);
        assert_eq!(due, [stored("red", NOW_MS + 100_000, NOW_MS)]);
        let later = stored("red", NOW_MS + 101_000, NOW_MS - 500);
        assert_eq!(groups.apply(&later), Ok(MembershipNews::Nothing));
        assert_eq!(groups.unwritten_len(), 0, "another node has written it");
        groups.leave("chat", "ann", None);
        advance(Duration::from_secs(1)).await;
        let left = groups.unwritten(10).remove(0);
        assert!(left.until_ms == 0 && left.changed_ms > later.changed_ms);
        assert_eq!(groups.apply(&later), Ok(MembershipNews::Nothing));
        assert_eq!((of(&groups, "ann").len(), groups.unwritten_len()), (0, 1), "an old value changes nothing");
        assert_eq!(groups.apply(&left), Ok(MembershipNews::Nothing));
        assert_eq!(groups.unwritten_len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn values_of_the_store_begin_and_end_memberships_with_their_rest_of_life() {
        let groups = storing();
        assert_eq!(groups.apply(&stored("red", NOW_MS + 10_000, NOW_MS - 90_000)), Ok(MembershipNews::Begun));
        assert_eq!(groups.apply(&stored("over", NOW_MS - 1, NOW_MS - 90_000)), Ok(MembershipNews::Nothing));
        assert_eq!(of(&groups, "ann"), ["red"]);
        advance(Duration::from_secs(9)).await;
        assert_eq!(of(&groups, "ann"), ["red"]);
        assert_eq!(groups.apply(&stored("red", 0, NOW_MS + 1)), Ok(MembershipNews::Ended));
        assert_eq!((of(&groups, "ann").len(), groups.unwritten_len()), (0, 0));
        assert_eq!(groups.apply(&stored("red", NOW_MS + 60_000, NOW_MS - 90_000)), Ok(MembershipNews::Nothing));
        assert_eq!((of(&groups, "ann").len(), groups.unwritten_len()), (0, 1), "a copy of an old value is overwritten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_has_lost_is_written_again() {
        let groups = storing();
        for group in ["red", "blue", "left"] {
            groups.apply(&stored(group, NOW_MS + 10_000, NOW_MS)).unwrap();
        }
        groups.apply(&stored("left", 0, NOW_MS + 1)).unwrap();
        groups.mark_unwritten(|own| &*own.group == "blue");
        assert_eq!(groups.unwritten_len(), 1);
        groups.mark_unwritten(|_| true);
        advance(Duration::from_secs(1)).await;
        assert_eq!(groups.unwritten(10).len(), 3);
        advance(Duration::from_secs(LEFT_REMEMBERED_MS.unsigned_abs())).await;
        groups.take_expired();
        assert_eq!(groups.unwritten(10).iter().filter(|own| own.until_ms > 0).count(), 0, "expired ones are not");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_about_what_the_store_has_said_is_no_new_change() {
        let groups = storing();
        let join = |seconds| {
            let change = UserGroupChange { user_id: name("ann"), group: Some(name("red")), ack_id: 0, ttl_s: seconds };
            groups.note("chat", &ServiceMessage::UserJoinGroup(change)).unwrap();
        };
        groups.apply(&stored("red", NOW_MS + 99_500, NOW_MS)).unwrap();
        join(Some(100));
        assert_eq!(groups.unwritten_len(), 0);
        join(Some(200));
        assert_eq!(groups.unwritten_len(), 1, "a renewal");
        groups.apply(&stored("red", NOW_MS + 5_000, NOW_MS + 9_000)).unwrap();
        advance(Duration::from_secs(3)).await;
        join(Some(5));
        assert_eq!(groups.unwritten_len(), 1, "a renewal of a short one");
    }
}
