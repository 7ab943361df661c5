//! Memberships of users in groups that hold for connections to come, each for a time.
//!
//! ```text
//!  a user joins, for a time ─► noted here ─► its connections join ─► connections that open meanwhile join, too
//!                                   └─ the time is over, or the user leaves ─► its connections leave
//! ```
//!
//! Each node of a fleet has them all: a client may connect to any.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::service::ServiceMessage;

/// Time that a membership holds without another one, in seconds: a year, as at Azure's service.
pub(crate) const MEMBERSHIP_S: i64 = 365 * 24 * 3600;

/// Groups of one user that are kept, the latest ones, as at Azure's service.
const GROUPS_PER_USER_MAX: usize = 100;

/// Memberships of users, of all hubs.
#[derive(Debug)]
pub(crate) struct UserGroups {
    max: usize,
    /// Number of memberships: what a connection that opens asks first.
    count: AtomicUsize,
    kept: Mutex<KeptGroups>,
}

#[derive(Debug, Default)]
struct KeptGroups {
    users: HashMap<UserKey, VecDeque<UserGroup>>,
    /// No membership ends before this.
    none_ends_before: Option<Instant>,
}

/// Name of a hub in the fleet, and a user of it. The hub need not be known here yet.
type UserKey = (ByteString, ByteString);

/// Membership of a user in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UserGroup {
    group: ByteString,
    until: Instant,
}

/// Membership of a user, for a node that has just joined the fleet, or that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptMembership {
    /// Name of the hub in the fleet.
    pub(crate) hub: ByteString,
    pub(crate) user: ByteString,
    pub(crate) group: ByteString,
    /// Time that is left, in seconds.
    pub(crate) left_s: u64,
}

/// Reason why a membership is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node keeps {max} memberships of users, and no more: see --rest-user-groups-max")]
pub(crate) struct TooManyMemberships {
    max: usize,
}

impl UserGroups {
    #[must_use]
    pub(super) fn new(max: usize) -> Self {
        Self { max, count: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// Keeps a membership for so many seconds; one that is known has a new time.
    ///
    /// # Errors
    /// When too many are kept.
    pub(crate) fn join(
        &self,
        hub: &str,
        user: &ByteString,
        group: &ByteString,
        seconds: u64,
    ) -> Result<(), TooManyMemberships> {
        let mut kept = self.kept();
        let groups = kept.users.get_mut(&(hub.into(), user.clone()));
        let is_known = groups.is_some_and(|groups| remove(groups, group));
        if !is_known && self.count.load(Ordering::Relaxed) >= self.max {
            return Err(TooManyMemberships { max: self.max });
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        kept.none_ends_before = Some(kept.none_ends_before.map_or(until, |least| least.min(until)));
        let groups = kept.users.entry((hub.into(), user.clone())).or_default();
        groups.push_back(UserGroup { group: group.clone(), until });
        let is_full = groups.len() > GROUPS_PER_USER_MAX;
        if is_full {
            groups.pop_front();
        }
        if !is_known && !is_full {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Keeps or ends what a message says of a user's memberships; any other message says nothing of them.
    ///
    /// # Errors
    /// When too many are kept.
    pub(crate) fn note(&self, hub: &str, message: &ServiceMessage) -> Result<(), TooManyMemberships> {
        use ServiceMessage as M;
        match message {
            M::UserJoinGroup(change) | M::UserJoinGroupWithAck(change) => match (&change.group, change.ttl_s) {
                (Some(group), Some(seconds)) if seconds > 0 => {
                    self.join(hub, &change.user_id, group, seconds.unsigned_abs())?;
                }
                _ => {}
            },
            M::UserLeaveGroup(change) | M::UserLeaveGroupWithAck(change) => {
                self.leave(hub, &change.user_id, change.group.as_ref());
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends a membership, or all of a user.
    pub(crate) fn leave(&self, hub: &str, user: &ByteString, group: Option<&ByteString>) {
        if self.is_empty() {
            return;
        }
        let (mut kept, key) = (self.kept(), (hub.into(), user.clone()));
        let Some(groups) = kept.users.get_mut(&key) else { return };
        let before = groups.len();
        match group {
            Some(group) => drop(remove(groups, group)),
            None => groups.clear(),
        }
        self.count.fetch_sub(before - groups.len(), Ordering::Relaxed);
        if groups.is_empty() {
            kept.users.remove(&key);
        }
    }

    /// Groups that a new connection of a user joins.
    #[must_use]
    pub(crate) fn of(&self, hub: &str, user: &str) -> Vec<ByteString> {
        if self.is_empty() {
            return Vec::new();
        }
        let (kept, now) = (self.kept(), Instant::now());
        let groups = kept.users.get(&(hub.into(), user.into())).into_iter().flatten().filter(|kept| kept.until > now);
        groups.map(|kept| kept.group.clone()).collect()
    }

    /// Whether a user is in a group, whether it has connections or not.
    #[must_use]
    pub(crate) fn contain(&self, hub: &str, user: &str, group: &str) -> bool {
        self.of(hub, user).iter().any(|kept| kept == group)
    }

    /// Takes the memberships whose time is over.
    pub(crate) fn take_expired(&self) -> Vec<KeptMembership> {
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
                    expired.push(KeptMembership { hub: hub.clone(), user, group, left_s: 0 });
                }
                !is_over
            });
            !groups.is_empty()
        });
        kept.none_ends_before = kept.users.values().flatten().map(|kept| kept.until).min();
        self.count.fetch_sub(expired.len(), Ordering::Relaxed);
        expired
    }

    /// All memberships, each user's in the order in which it has joined.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<KeptMembership> {
        let (kept, now) = (self.kept(), Instant::now());
        let all = kept.users.iter().flat_map(|((hub, user), groups)| {
            groups.iter().map(move |kept| KeptMembership {
                hub: hub.clone(),
                user: user.clone(),
                group: kept.group.clone(),
                left_s: kept.until.saturating_duration_since(now).as_secs(),
            })
        });
        all.collect()
    }

    /// Number of memberships that are kept.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kept(&self) -> MutexGuard<'_, KeptGroups> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a group of a user; `false` if it was none.
fn remove(groups: &mut VecDeque<UserGroup>, group: &ByteString) -> bool {
    let place = groups.iter().position(|kept| kept.group == *group);
    place.and_then(|place| groups.remove(place)).is_some()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn name(text: &str) -> ByteString {
        text.into()
    }

    fn of(groups: &UserGroups, user: &str) -> Vec<String> {
        groups.of("chat", user).iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_membership_holds_for_its_time_and_until_the_user_leaves() {
        let groups = UserGroups::new(10);
        let join = |user: &str, group: &str, seconds| groups.join("chat", &name(user), &name(group), seconds);
        assert_eq!((join("ann", "red", 10), join("ann", "blue", 20), join("ben", "red", 20)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((of(&groups, "ann"), groups.len()), (vec!["red".to_owned(), "blue".into()], 3));
        assert!(groups.of("news", "ann").is_empty(), "another hub has users of its own");
        advance(Duration::from_secs(10)).await;
        assert_eq!(of(&groups, "ann"), ["blue"]);
        let expired = groups.take_expired();
        assert_eq!(expired, [KeptMembership { hub: name("chat"), user: name("ann"), group: name("red"), left_s: 0 }]);
        groups.leave("chat", &name("ann"), Some(&name("nothing")));
        groups.leave("chat", &name("ann"), Some(&name("blue")));
        assert_eq!((of(&groups, "ann").len(), of(&groups, "ben").len(), groups.len()), (0, 1, 1));
        groups.leave("chat", &name("ben"), None);
        assert!(groups.is_empty() && groups.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn joining_again_renews_and_the_latest_groups_of_a_user_are_kept() {
        let groups = UserGroups::new(1_000);
        let ann = name("ann");
        for number in 0..GROUPS_PER_USER_MAX + 5 {
            assert!(groups.join("chat", &ann, &name(&number.to_string()), 10).is_ok());
        }
        assert_eq!((groups.len(), &*of(&groups, "ann")[0]), (GROUPS_PER_USER_MAX, "5"));
        assert!(groups.join("chat", &ann, &name("5"), 30).is_ok());
        assert_eq!((groups.len(), &*of(&groups, "ann")[0]), (GROUPS_PER_USER_MAX, "6"));
        advance(Duration::from_secs(20)).await;
        assert_eq!((of(&groups, "ann"), groups.take_expired().len()), (vec!["5".to_owned()], GROUPS_PER_USER_MAX - 1));
        assert_eq!(groups.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_none_is_kept_and_the_option_is_named() {
        let groups = UserGroups::new(1);
        assert!(groups.join("chat", &name("ann"), &name("red"), 10).is_ok());
        let refused = groups.join("chat", &name("ben"), &name("red"), 10).unwrap_err();
        assert!(refused.to_string().contains("--rest-user-groups-max"), "{refused}");
        assert!(groups.join("chat", &name("ann"), &name("red"), 20).is_ok(), "one that is known is renewed");
    }
}
