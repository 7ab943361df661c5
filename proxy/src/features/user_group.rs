//! Time-limited user memberships in groups, which also apply to future connections.
//!
//! ```text
//!  a user joins, for a time ─► stored here ─► current connections join ─► new connections join, too
//!                                  └─ expired, or the user leaves ─► connections leave
//! ```
//!
//! Each node stores all of them, because clients may connect to any node.

mod stored_membership;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::fleet::SharedMembership;
use trunkline_protocol::service::ServiceMessage;

use crate::engine::shard::{ExpiredMembership, KeptMemberships, MEMBERSHIP_S, MembershipRefused};
use crate::engine::upstream::HubOrigin;
use crate::features::admission::SigningKeys;
use crate::ground::auth::Signer;
use crate::ground::config::Settings;
use crate::ground::limits::SignerShare;
use stored_membership::{LeftMemberships, UnwrittenMemberships, UserKey, is_same_end};

pub(crate) use stored_membership::{LEFT_REMEMBERED_MS, StoredMembership};

/// Maximum number of groups per user, as in Azure's service. The oldest memberships are evicted.
const GROUPS_PER_USER_MAX: usize = 100;

/// Maximum length of a user id in characters, from any source. The REST data plane has the same limit.
const USER_MAX_CHARS: usize = 1024;

/// Memory of a membership without its names, in bytes.
const OVERHEAD_BYTES: usize = 64;

/// Fraction of the total bytes available to one hub, so that one app can't use up the memory of all.
const HUB_PART: usize = 2;

/// Limits of the stored memberships.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserGroupLimits {
    /// Number of memberships of all users.
    pub count: usize,
    /// Memory of all memberships.
    pub total_bytes: usize,
    /// Maximum length of a group name.
    pub name_max_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct UserGroups {
    limits: UserGroupLimits,
    /// Keys, which determine the owner of a hub.
    keys: Arc<SigningKeys>,
    /// Number of memberships, checked first by each new connection.
    count: AtomicUsize,
    begun: Instant,
    /// `begun` by the store's clock, in milliseconds since 1970; 0 before a store is read.
    begun_in_store_ms: AtomicI64,
    kept: Mutex<KeptGroups>,
}

#[derive(Debug, Default)]
struct KeptGroups {
    users: HashMap<UserKey, VecDeque<UserGroup>>,
    left: LeftMemberships,
    unwritten: UnwrittenMemberships,
    /// No membership expires before this time.
    none_ends_before: Option<Instant>,
    /// Usage per hub, with the signer that owned the hub at its first membership.
    hubs: HashMap<ByteString, (Signer, KeptUse)>,
    /// Usage per signer with such hubs.
    signers: HashMap<Signer, KeptUse>,
}

/// Stored memberships of a hub or a signer.
#[derive(Debug, Default, Clone, Copy)]
struct KeptUse {
    count: usize,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct UserGroup {
    group: ByteString,
    until: Instant,
    /// Time of the last start or renewal, in milliseconds since this node started storing memberships.
    changed_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MembershipNews {
    Begun,
    Ended,
    /// Already known, or older than this node's state.
    Nothing,
}

impl UserGroups {
    pub(crate) fn new(limits: UserGroupLimits, keys: Arc<SigningKeys>) -> Self {
        let (count, begun_in_store_ms) = (AtomicUsize::new(0), AtomicI64::new(0));
        Self { limits, keys, count, begun: Instant::now(), begun_in_store_ms, kept: Mutex::default() }
    }

    /// Creates an empty table with the limits of a node.
    pub(crate) fn of_node(settings: &Settings, keys: &Arc<SigningKeys>) -> Arc<Self> {
        let limits = UserGroupLimits {
            count: settings.rest.user_groups_max,
            total_bytes: settings.rest.user_groups_max_bytes,
            name_max_bytes: settings.groups.name_max_bytes,
        };
        Arc::new(Self::new(limits, keys.clone()))
    }

    /// Stores a membership for `seconds`, or renews an existing one. Fails if too many are stored, or a name is too
    /// long.
    pub(crate) fn join(&self, hub: &str, user: &str, group: &str, seconds: u64) -> Result<(), MembershipRefused> {
        self.check_names(user, group)?;
        let (mut kept, key) = (self.kept(), (hub.into(), user.into()));
        let time = Duration::from_secs(seconds).min(Duration::from_secs(MEMBERSHIP_S.unsigned_abs()));
        let joined = kept.users.get(&key).and_then(|groups| groups.iter().find(|kept| kept.group == *group));
        let known_ms = joined.map(|kept| kept.changed_ms).or_else(|| kept.left.at_ms(&key, group));
        let changed_ms = self.now_ms().max(known_ms.map_or(i64::MIN, |known_ms| known_ms.saturating_add(1)));
        if kept.unwritten.is_on() && joined.is_some_and(|kept| kept.ends_after(time)) {
            return Ok(());
        }
        self.keep(&mut kept, key.clone(), group, (time, changed_ms))?;
        kept.unwritten.add_membership(&key, group);
        Ok(())
    }

    /// Checks the names of a membership before copying them.
    fn check_names(&self, user: &str, group: &str) -> Result<(), MembershipRefused> {
        let (length, limit) = (group.len(), self.limits.name_max_bytes);
        if length > limit {
            return Err(MembershipRefused::GroupTooLong { length, limit });
        }
        match user.chars().count() {
            length if length > USER_MAX_CHARS => Err(MembershipRefused::UserTooLong { length, limit: USER_MAX_CHARS }),
            _ => Ok(()),
        }
    }

    /// Stores a membership started or renewed at this time. Returns whether it is new.
    fn keep(
        &self,
        kept: &mut KeptGroups,
        user: UserKey,
        group: &str,
        (time, changed_ms): (Duration, i64),
    ) -> Result<MembershipNews, MembershipRefused> {
        let former = kept.users.get_mut(&user).and_then(|groups| remove(groups, group));
        let is_known = former.is_some();
        if !is_known {
            let signer = self.check_room(kept, &user, group)?;
            kept.add_membership(&user, group, signer);
        }
        let until = Instant::now() + time.min(Duration::from_secs(MEMBERSHIP_S.unsigned_abs()));
        kept.none_ends_before = Some(kept.none_ends_before.map_or(until, |least| least.min(until)));
        kept.left.remove(&user, group);
        // Copied like the other names: a slice would keep its whole message alive.
        let group = former.map_or_else(|| group.into(), |former| former.group);
        let groups = kept.users.entry(user.clone()).or_default();
        let place = groups.partition_point(|kept| kept.changed_ms <= changed_ms);
        groups.insert(place, UserGroup { group, until, changed_ms });
        let is_full = groups.len() > GROUPS_PER_USER_MAX;
        if is_full && let Some(oldest) = groups.pop_front() {
            kept.take_membership(&user, &oldest.group);
        }
        if !is_known && !is_full {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(if is_known { MembershipNews::Nothing } else { MembershipNews::Begun })
    }

    /// Checks the room for one more membership. Returns the owner of its hub.
    fn check_room(&self, kept: &KeptGroups, user: &UserKey, group: &str) -> Result<Signer, MembershipRefused> {
        let UserGroupLimits { count, total_bytes, .. } = self.limits;
        let (signer, of_hub) = match kept.hubs.get(&user.0) {
            Some((signer, of_hub)) => (signer.clone(), *of_hub),
            None => (self.keys.owner_of(HubOrigin::name_in(&user.0)), KeptUse::default()),
        };
        let share = SignerShare::new(signer, self.keys.has_apps());
        let own = kept.signers.get(&share.signer).copied().unwrap_or_default();
        share
            .check(count, self.count.load(Ordering::Relaxed), own.count)
            .map_err(|full| MembershipRefused::TooMany(full.describe("memberships of users")))?;
        let (more, of_all) = (weight(user, group), kept.bytes());
        let is_over = |used: usize, most: usize| used.saturating_add(more) > most;
        if is_over(of_all, total_bytes)
            || is_over(of_hub.bytes, total_bytes / HUB_PART)
            || is_over(own.bytes, share.of(total_bytes, of_all))
        {
            return Err(MembershipRefused::TooLarge(total_bytes));
        }
        Ok(share.signer.clone())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.kept().bytes()
    }

    /// Ends one membership of a user, or all.
    pub(crate) fn leave(&self, hub: &str, user: &str, group: Option<&str>) {
        if self.is_empty() {
            return;
        }
        let (mut kept, key, now_ms) = (self.kept(), (hub.into(), user.into()), self.now_ms());
        for gone in self.end_memberships(&mut kept, &key, group) {
            kept.unwritten.add_membership(&key, &gone.group);
            kept.left.note_left(&key, gone.group, now_ms.max(gone.changed_ms.saturating_add(1)), now_ms);
        }
    }

    fn end_memberships(&self, kept: &mut KeptGroups, user: &UserKey, group: Option<&str>) -> Vec<UserGroup> {
        let Some(groups) = kept.users.get_mut(user) else { return Vec::new() };
        let gone: Vec<_> = match group {
            Some(group) => remove(groups, group).into_iter().collect(),
            None => groups.drain(..).collect(),
        };
        if groups.is_empty() {
            kept.users.remove(user);
        }
        gone.iter().for_each(|gone| kept.take_membership(user, &gone.group));
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
        gone
    }

    /// Applies another node's report. The later of two changes wins, so that disconnected nodes converge, and an old
    /// membership is not restored. Fails if too many are stored, or a name is too long.
    pub(crate) fn merge(&self, told: &SharedMembership) -> Result<MembershipNews, MembershipRefused> {
        self.check_names(&told.user, &told.group)?;
        let now_ms = self.now_ms();
        let changed_ms = now_ms.saturating_sub_unsigned(told.age_ms);
        let (mut kept, key) = (self.kept(), (copy(&told.hub), copy(&told.user)));
        let joined = kept.users.get(&key).and_then(|groups| groups.iter().find(|kept| kept.group == told.group));
        let known_ms = joined.map(|kept| kept.changed_ms).or_else(|| kept.left.at_ms(&key, &told.group));
        if known_ms.is_some_and(|known_ms| known_ms >= changed_ms) {
            return Ok(MembershipNews::Nothing);
        }
        kept.unwritten.add_membership(&key, &told.group);
        if told.left_ms > 0 {
            let time = Duration::from_millis(told.left_ms);
            return self.keep(&mut kept, key, &told.group, (time, changed_ms));
        }
        let gone = self.end_memberships(&mut kept, &key, Some(&told.group));
        kept.left.note_left(&key, copy(&told.group), changed_ms, now_ms);
        Ok(if gone.is_empty() { MembershipNews::Nothing } else { MembershipNews::Ended })
    }

    /// Users with memberships that another node needs.
    pub(crate) fn users(&self) -> Vec<UserKey> {
        let kept = self.kept();
        let mut gone: Vec<_> = kept.left.users().filter(|user| !kept.users.contains_key(*user)).collect();
        gone.dedup();
        kept.users.keys().chain(gone).cloned().collect()
    }

    /// Passes a user's memberships to `report`, for another node, under the lock, so that later changes are sent
    /// afterwards.
    pub(crate) fn report(&self, user: &UserKey, mut report: impl FnMut(SharedMembership)) {
        let (kept, now, now_ms) = (self.kept(), Instant::now(), self.now_ms());
        let told = |group: &ByteString, left: Duration, changed_ms: i64| SharedMembership {
            hub: user.0.clone(),
            user: user.1.clone(),
            group: group.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            age_ms: u64::try_from(now_ms.saturating_sub(changed_ms)).unwrap_or_default(),
        };
        for (group, at_ms) in kept.left.left_by(user) {
            report(told(group, Duration::ZERO, at_ms));
        }
        for kept in kept.users.get(user).into_iter().flatten() {
            let left = kept.until.saturating_duration_since(now);
            if left >= Duration::from_millis(1) {
                report(told(&kept.group, left, kept.changed_ms));
            }
        }
    }

    /// From now on, records what the store doesn't have.
    pub(crate) fn begin_storing(&self) {
        self.kept().unwritten.begin_recording();
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
            kept.unwritten.add_membership(&key, &stored.group);
            return Ok(MembershipNews::Nothing);
        }
        kept.unwritten.remove(&key, &stored.group);
        match stored.until_ms.saturating_sub(store_now_ms) {
            0 => {
                let gone = self.end_memberships(&mut kept, &key, Some(&stored.group));
                kept.left.note_left(&key, stored.group.clone(), changed_ms, now_ms);
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

    /// Changes that this node has to write now, at most `max`.
    pub(crate) fn unwritten(&self, max: usize) -> Vec<StoredMembership> {
        let (mut kept, mut own) = (self.kept(), Vec::new());
        for (user, group) in kept.unwritten.due(max) {
            match self.own(&kept, &user, &group) {
                Some(stored) => own.push(stored),
                // It has expired, or is forgotten.
                None => kept.unwritten.remove(&user, &group),
            }
        }
        own
    }

    /// Notes that the store has nothing of a membership that has ended here.
    pub(crate) fn note_absent(&self, own: &StoredMembership) {
        let key = (own.hub.clone(), own.user.clone());
        self.kept().unwritten.remove(&key, &own.group);
    }

    pub(crate) fn unwritten_len(&self) -> usize {
        self.kept().unwritten.len()
    }

    /// Notes that the store may have lost these memberships.
    pub(crate) fn mark_unwritten(&self, is_lost: impl Fn(&StoredMembership) -> bool) {
        for user in self.users() {
            let mut kept = self.kept();
            let joined = kept.users.get(&user).into_iter().flatten().map(|kept| &kept.group);
            let names: Vec<_> = joined.chain(kept.left.left_by(&user).map(|(group, _)| group)).cloned().collect();
            for group in names {
                if self.own(&kept, &user, &group).is_some_and(|own| is_lost(&own)) {
                    kept.unwritten.add_membership(&user, &group);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn kept(&self) -> MutexGuard<'_, KeptGroups> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UserGroup {
    /// Whether the membership ends after this time from now, except for a delay between nodes.
    fn ends_after(&self, time: Duration) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        let [left_ms, time_ms] = [left, time].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        left_ms > 0 && is_same_end(left_ms, time_ms)
    }
}

impl KeptMemberships for UserGroups {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn groups_of(&self, hub: &str, user: &str) -> Vec<ByteString> {
        if self.is_empty() {
            return Vec::new();
        }
        let (kept, now) = (self.kept(), Instant::now());
        let groups = kept.users.get(&(hub.into(), user.into())).into_iter().flatten().filter(|kept| kept.until > now);
        groups.map(|kept| kept.group.clone()).collect()
    }

    fn note_change(&self, hub: &str, message: &ServiceMessage) -> Result<(), MembershipRefused> {
        use ServiceMessage as M;
        match message {
            M::UserJoinGroup(change) | M::UserJoinGroupWithAck(change) => match (&change.group, change.ttl_s) {
                (Some(group), Some(seconds)) if seconds > 0 => {
                    self.join(hub, &change.user_id, group, seconds.unsigned_abs())?;
                }
                _ => {}
            },
            M::UserLeaveGroup(change) | M::UserLeaveGroupWithAck(change) => {
                self.leave(hub, &change.user_id, change.group.as_deref());
            }
            _ => {}
        }
        Ok(())
    }

    fn take_expired(&self) -> Vec<ExpiredMembership> {
        if self.is_empty() {
            return Vec::new();
        }
        let (mut expired, now) = (Vec::new(), Instant::now());
        let mut kept = self.kept();
        if kept.none_ends_before.is_some_and(|least| least > now) {
            return expired;
        }
        kept.users.retain(|(hub, user), groups| {
            groups.retain(|kept| {
                let is_over = kept.until <= now;
                if is_over {
                    let (user, group) = (user.clone(), kept.group.clone());
                    expired.push(ExpiredMembership { hub: hub.clone(), user, group });
                }
                !is_over
            });
            !groups.is_empty()
        });
        kept.none_ends_before = kept.users.values().flatten().map(|kept| kept.until).min();
        for ExpiredMembership { hub, user, group } in &expired {
            kept.take_membership(&(hub.clone(), user.clone()), group);
        }
        self.count.fetch_sub(expired.len(), Ordering::Relaxed);
        expired
    }
}

impl KeptGroups {
    fn bytes(&self) -> usize {
        self.signers.values().map(|used| used.bytes).sum()
    }

    /// Counts a membership. A hub without memberships is counted for this signer.
    fn add_membership(&mut self, user: &UserKey, group: &str, signer: Signer) {
        let (signer, of_hub) = self.hubs.entry(user.0.clone()).or_insert_with(|| (signer, KeptUse::default()));
        for used in [of_hub, self.signers.entry(signer.clone()).or_default()] {
            used.count += 1;
            used.bytes += weight(user, group);
        }
    }

    /// Removes a membership from the counts.
    fn take_membership(&mut self, user: &UserKey, group: &str) {
        let Some((signer, of_hub)) = self.hubs.get_mut(&user.0) else { return };
        let signer = signer.clone();
        if of_hub.subtract(weight(user, group)) {
            self.hubs.remove(&user.0);
        }
        if self.signers.get_mut(&signer).is_some_and(|used| used.subtract(weight(user, group))) {
            self.signers.remove(&signer);
        }
    }
}

fn weight((hub, user): &UserKey, group: &str) -> usize {
    hub.len() + user.len() + group.len() + OVERHEAD_BYTES
}

impl KeptUse {
    /// Subtracts one membership of this size. Returns whether it was the last.
    fn subtract(&mut self, bytes: usize) -> bool {
        (self.count, self.bytes) = (self.count.saturating_sub(1), self.bytes.saturating_sub(bytes));
        self.count == 0
    }
}

fn remove(groups: &mut VecDeque<UserGroup>, group: &str) -> Option<UserGroup> {
    let place = groups.iter().position(|kept| kept.group == *group)?;
    groups.remove(place)
}

/// Copies a name out of its message.
fn copy(name: &str) -> ByteString {
    name.into()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use trunkline_protocol::key::{AccessKey, AccessKeys};
    use trunkline_protocol::service::UserGroupChange;

    use super::*;
    use crate::ground::auth::AppKey;
    use crate::ground::config::SecretLine;

    /// Time of the store's clock at the start.
    const NOW_MS: u64 = 1_700_000_000_000;

    fn groups_of(count: usize) -> UserGroups {
        of_apps(count, &[])
    }

    fn of_apps(count: usize, apps: &[AppKey]) -> UserGroups {
        let fleet = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let limits = UserGroupLimits { count, total_bytes: 1024 * 1024, name_max_bytes: 1024 };
        UserGroups::new(limits, SigningKeys::new(&fleet, apps))
    }

    fn name(text: &str) -> ByteString {
        text.into()
    }

    fn of(groups: &UserGroups, user: &str) -> Vec<String> {
        groups.groups_of("chat", user).iter().map(ToString::to_string).collect()
    }

    fn told(groups: &UserGroups) -> Vec<SharedMembership> {
        let mut told = Vec::new();
        groups.users().iter().for_each(|user| groups.report(user, |one| told.push(one)));
        told
    }

    /// Exchanges all memberships between two nodes.
    fn introduce(one: &UserGroups, other: &UserGroups) {
        let (of_one, of_other) = (told(one), told(other));
        of_one.iter().for_each(|told| drop(other.merge(told)));
        of_other.iter().for_each(|told| drop(one.merge(told)));
    }

    #[test]
    fn memberships_of_one_apps_hubs_leave_a_half_of_the_places_to_others() {
        let keys = AppKey::lines("shop=the key of the shop;shop*\nnews=the key of the news").unwrap();
        let groups = of_apps(10, &keys);
        let join = |hub: &str, user: u8| groups.join(hub, &user.to_string(), "red", 10);
        assert!((0..3).all(|user| join("?hub=shop1", user).is_ok()));
        assert!((0..2).all(|user| join("?hub=shop2", user).is_ok()));
        let refused = join("?hub=shop3", 9).unwrap_err().to_string();
        assert!(refused.contains("5 memberships of users by the key of app shop"), "{refused}");
        assert!((0..3).all(|user| join("?hub=news", user).is_ok()));
        let refused = join("?hub=news", 3).unwrap_err().to_string();
        assert!(refused.contains("3 memberships of users by the key of app news"), "{refused}");
        ["0", "1"].iter().for_each(|user| groups.leave("?hub=shop1", user, None));
        assert_eq!(join("?hub=news", 3), Ok(()), "as many are free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_membership_holds_for_its_time_and_until_the_user_leaves() {
        let groups = groups_of(10);
        let join = |user: &str, group: &str, seconds| groups.join("chat", user, group, seconds);
        assert_eq!((join("ann", "red", 10), join("ann", "blue", 20), join("ben", "red", 20)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((of(&groups, "ann"), groups.len()), (vec!["red".to_owned(), "blue".into()], 3));
        assert!(groups.groups_of("news", "ann").is_empty(), "another hub has users of its own");
        advance(Duration::from_secs(10)).await;
        assert_eq!(of(&groups, "ann"), ["blue"]);
        let expired = groups.take_expired();
        assert_eq!(expired, [ExpiredMembership { hub: name("chat"), user: name("ann"), group: name("red") }]);
        groups.leave("chat", "ann", Some("nothing"));
        groups.leave("chat", "ann", Some("blue"));
        assert_eq!((of(&groups, "ann").len(), of(&groups, "ben").len(), groups.len()), (0, 1, 1));
        groups.leave("chat", "ben", None);
        assert!(groups.is_empty() && told(&groups).iter().all(|told| told.left_ms == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn joining_again_renews_and_the_latest_groups_of_a_user_are_kept() {
        let groups = groups_of(1_000);
        for number in 0..GROUPS_PER_USER_MAX + 5 {
            assert!(groups.join("chat", "ann", &number.to_string(), 10).is_ok());
        }
        assert_eq!((groups.len(), &*of(&groups, "ann")[0]), (GROUPS_PER_USER_MAX, "5"));
        assert!(groups.join("chat", "ann", "5", 30).is_ok());
        assert_eq!((groups.len(), &*of(&groups, "ann")[0]), (GROUPS_PER_USER_MAX, "6"));
        advance(Duration::from_secs(20)).await;
        assert_eq!((of(&groups, "ann"), groups.take_expired().len()), (vec!["5".to_owned()], GROUPS_PER_USER_MAX - 1));
        assert_eq!(groups.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_none_is_kept_and_the_option_is_named() {
        let groups = groups_of(1);
        assert!(groups.join("chat", "ann", "red", 10).is_ok());
        let refused = groups.join("chat", "ben", "red", 10).unwrap_err();
        assert!(refused.to_string().contains("--rest-user-groups-max"), "{refused}");
        assert!(groups.join("chat", "ann", "red", 20).is_ok(), "one that is known is renewed");
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_is_too_long() {
        let groups = groups_of(10);
        let ttl_s = Some(i64::MAX);
        let change = UserGroupChange { user_id: name("ann"), group: Some(name("red")), ack_id: 0, ttl_s };
        assert!(groups.note_change("chat", &ServiceMessage::UserJoinGroup(change)).is_ok());
        let forever = SharedMembership { left_ms: u64::MAX, ..told(&groups)[0].clone() };
        let other = groups_of(10);
        assert_eq!(other.merge(&SharedMembership { age_ms: u64::MAX, ..forever }), Ok(MembershipNews::Begun));
        advance(Duration::from_secs(MEMBERSHIP_S.unsigned_abs())).await;
        assert_eq!((groups.take_expired().len(), other.take_expired().len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_copies_that_keep_no_message_in_memory() {
        let groups = groups_of(10);
        let frame = bytes::Bytes::from_static(b"annred");
        let part = |range| ByteString::try_from(frame.slice(range)).unwrap();
        let (user, group) = (part(0..3), part(3..6));
        let change = |ttl_s| UserGroupChange { user_id: user.clone(), group: Some(group.clone()), ack_id: 0, ttl_s };
        groups.note_change("chat", &ServiceMessage::UserJoinGroup(change(Some(10)))).unwrap();
        let is_slice = |name: &ByteString| frame.as_ptr_range().contains(&name.as_ptr());
        assert!(is_slice(&user) && is_slice(&group));
        let are_copies =
            |groups: &UserGroups| told(groups).iter().all(|told| !is_slice(&told.user) && !is_slice(&told.group));
        assert!(are_copies(&groups));
        let other = groups_of(10);
        let (hub, left_ms, age_ms) = (name("chat"), 10, 0);
        let mut of_frame = SharedMembership { hub, user: user.clone(), group: group.clone(), left_ms, age_ms };
        other.merge(&of_frame).unwrap();
        assert!(are_copies(&other));
        advance(Duration::from_millis(1)).await;
        of_frame.left_ms = 0;
        other.merge(&of_frame).unwrap();
        groups.note_change("chat", &ServiceMessage::UserLeaveGroup(change(None))).unwrap();
        assert!(are_copies(&groups) && are_copies(&other) && told(&other).len() == 1);
    }

    #[test]
    fn only_what_is_kept_or_was_kept_concerns_them() {
        let groups = groups_of(10);
        let change = |ttl_s| UserGroupChange { user_id: name("ann"), group: Some(name("red")), ack_id: 0, ttl_s };
        let (join, leave) = (ServiceMessage::UserJoinGroup, ServiceMessage::UserLeaveGroupWithAck(change(None)));
        let are = |message: &ServiceMessage| (&groups as &dyn KeptMemberships).are_changed_by(message);
        assert!(!are(&join(change(None))) && !are(&join(change(Some(0)))) && !are(&leave));
        assert!(are(&join(change(Some(1)))));
        groups.join("chat", "ben", "red", 10).unwrap();
        assert!(are(&leave) && !are(&ServiceMessage::JoinGroup(Default::default())));
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_that_see_each_other_again_keep_what_has_changed_last() {
        let (one, other) = (groups_of(100), groups_of(100));
        for (group, seconds) in [("left", 1_000), ("longer", 100), ("shorter", 1_000), ("left and joined", 1_000)] {
            one.join("chat", "ann", group, seconds).unwrap();
        }
        let sorted = |node: &UserGroups| {
            let mut groups = of(node, "ann");
            groups.sort();
            groups
        };
        introduce(&one, &other);
        assert_eq!((of(&other, "ann"), other.len()), (of(&one, "ann"), 4));
        advance(Duration::from_secs(10)).await;
        one.leave("chat", "ann", Some("left"));
        one.leave("chat", "ann", Some("left and joined"));
        advance(Duration::from_secs(10)).await;
        one.join("chat", "ann", "longer", 1_000).unwrap();
        other.join("chat", "ann", "shorter", 50).unwrap();
        other.join("chat", "ann", "left and joined", 1_000).unwrap();
        advance(Duration::from_secs(10)).await;
        introduce(&one, &other);
        introduce(&one, &other);
        for node in [&one, &other] {
            assert_eq!(sorted(node), ["left and joined", "longer", "shorter"]);
        }
        advance(Duration::from_secs(50)).await;
        for node in [&one, &other] {
            assert_eq!(sorted(node), ["left and joined", "longer"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reports_of_another_node_are_distinguished_from_known_memberships() {
        let (one, other) = (groups_of(2), groups_of(1));
        one.join("chat", "ann", "red", 100).unwrap();
        let red = told(&one)[0].clone();
        let news = |told: &SharedMembership| other.merge(told);
        assert_eq!((news(&red), news(&red)), (Ok(MembershipNews::Begun), Ok(MembershipNews::Nothing)));
        let blue = SharedMembership { group: name("blue"), ..red };
        assert!(news(&blue).is_err(), "the limit holds for what is told, too");
        advance(Duration::from_secs(1)).await;
        one.leave("chat", "ann", None);
        let gone = told(&one)[0].clone();
        assert_eq!((news(&gone), news(&gone)), (Ok(MembershipNews::Ended), Ok(MembershipNews::Nothing)));
        assert!(other.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn long_names_are_refused_wherever_they_come_from() {
        let groups = groups_of(10);
        let long = "x".repeat(1024 * 1024);
        let refusal = groups.join("chat", "ann", &long, 10).unwrap_err();
        assert!(refusal.to_string().contains("--group-name-max-bytes"), "{refusal}");
        let change =
            UserGroupChange { user_id: long.clone().into(), group: Some(name("red")), ack_id: 0, ttl_s: Some(9) };
        let refusal = groups.note_change("chat", &ServiceMessage::UserJoinGroup(change)).unwrap_err();
        assert!(refusal.to_string().contains("1024 are allowed"), "{refusal}");
        let (hub, user, group) = (name("chat"), name("ann"), ByteString::from(long));
        for left_ms in [0, 1_000] {
            let told =
                SharedMembership { hub: hub.clone(), user: user.clone(), group: group.clone(), left_ms, age_ms: 0 };
            assert!(groups.merge(&told).is_err(), "an end is remembered, too");
        }
        assert_eq!((groups.bytes(), told(&groups).len()), (0, 0));
        assert!(groups.join("chat", &"é".repeat(1024), &"x".repeat(1024), 10).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn memberships_are_weighed_and_one_hub_has_half_of_the_bytes() {
        let groups = groups_of(100_000);
        let join = |hub: &str, number: usize| groups.join(hub, &format!("{number:0>1000}"), "red", 10);
        let mut kept = 0;
        while join("chat", kept).is_ok() {
            kept += 1;
        }
        assert!(groups.bytes() <= 512 * 1024 && groups.bytes() > 510 * 1024, "{}", groups.bytes());
        let refusal = join("chat", kept).unwrap_err();
        assert!(refusal.to_string().contains("--rest-user-groups-max-bytes"), "{refusal}");
        assert!(join("chat", 0).is_ok(), "one that is known is renewed");
        assert!(join("news", 0).is_ok(), "another hub has room");
        groups.leave("chat", &format!("{:0>1000}", 1), None);
        assert!(join("chat", kept).is_ok(), "one that has left makes room");
        advance(Duration::from_secs(10)).await;
        groups.take_expired();
        assert_eq!((groups.bytes(), groups.len()), (0, 0));
        for number in 0..2 * GROUPS_PER_USER_MAX {
            groups.join("chat", "ann", &format!("{number:0>100}"), 10).unwrap();
        }
        assert_eq!(groups.bytes(), GROUPS_PER_USER_MAX * (4 + 3 + 100 + OVERHEAD_BYTES));
    }

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
            groups.note_change("chat", &ServiceMessage::UserJoinGroup(change)).unwrap();
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
