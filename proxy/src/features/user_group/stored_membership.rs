//! Memberships that also live in a store: their times there, and changes that the store doesn't have yet.
//!
//! ```text
//!  join, leave, report of a node ─► table ─► not written yet ─ after a moment ─► store
//!                                     ▲            ▲ removed, once the store says the same
//!                                     └────────────┴──────────────────────────── store
//! ```
//!
//! Ages are relative to the store's clock, read once, so clocks of nodes don't matter.

use std::collections::HashMap;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use trunkline_protocol::id::random_bytes;

use crate::ground::bounded::Recent;

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
/// own time, so that mostly one of them writes a change.
#[derive(Debug, Default)]
pub(super) struct UnwrittenMemberships {
    changes: HashMap<(UserKey, ByteString), Instant>,
    /// `None` without a store.
    delay: Option<Duration>,
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
    /// From now on, records changes.
    pub(super) fn begin_recording(&mut self) {
        let [share] = random_bytes::<1>();
        self.delay.get_or_insert(Duration::from_millis(100 + 3 * u64::from(share)));
    }

    pub(super) fn is_on(&self) -> bool {
        self.delay.is_some()
    }

    pub(super) fn add_membership(&mut self, user: &UserKey, group: &str) {
        if let Some(delay) = self.delay.filter(|_| self.changes.len() < UNWRITTEN_MAX) {
            self.changes.entry((user.clone(), group.into())).or_insert_with(|| Instant::now() + delay);
        }
    }

    pub(super) fn remove(&mut self, user: &UserKey, group: &ByteString) {
        self.changes.remove(&(user.clone(), group.clone()));
    }

    /// Changes that this node has to write now, at most `max`.
    pub(super) fn due(&self, max: usize) -> Vec<(UserKey, ByteString)> {
        let now = Instant::now();
        self.changes.iter().filter(|(_, due)| **due <= now).map(|(change, _)| change.clone()).take(max).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }
}

/// Maximum number of recently left memberships to keep. The oldest are evicted.
const LEFT_MAX: usize = 10_000;

/// Retention time. Nodes disconnected for longer may restore a membership.
pub(crate) const LEFT_REMEMBERED_MS: i64 = 3_600_000;

/// Fleet-wide hub name and a user. The hub may be unknown to this node.
pub(crate) type UserKey = (ByteString, ByteString);

/// Memberships that users have left recently, so that older reports from other nodes don't restore them.
#[derive(Debug)]
pub(crate) struct LeftMemberships(Recent<(UserKey, ByteString), i64, i64>);

impl Default for LeftMemberships {
    fn default() -> Self {
        Self(Recent::new(LEFT_MAX))
    }
}

impl LeftMemberships {
    pub(crate) fn note_left(&mut self, user: &UserKey, group: ByteString, at_ms: i64, now_ms: i64) {
        self.0.insert((user.clone(), group), at_ms, at_ms.saturating_add(LEFT_REMEMBERED_MS));
        self.0.expire(now_ms);
    }

    pub(crate) fn remove(&mut self, user: &UserKey, group: &str) {
        self.0.remove(&(user.clone(), group.into()));
    }

    pub(crate) fn at_ms(&self, user: &UserKey, group: &str) -> Option<i64> {
        self.0.get(&(user.clone(), group.into())).copied()
    }

    pub(crate) fn left_by(&self, user: &UserKey) -> impl Iterator<Item = (&ByteString, i64)> {
        let left = self.0.range((user.clone(), ByteString::new())..).take_while(move |((other, _), _)| other == user);
        left.map(|((_, group), at_ms)| (group, *at_ms))
    }

    /// Users that have left groups, one entry per group.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserKey> {
        self.0.keys().map(|(user, _)| user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> UserKey {
        ("chat".into(), "ann".into())
    }

    #[test]
    fn the_latest_are_remembered_for_their_time() {
        let (mut left, ann) = (LeftMemberships::default(), ann());
        for number in 0..=LEFT_MAX {
            left.note_left(&ann, number.to_string().into(), 0, 0);
        }
        assert_eq!(
            (left.at_ms(&ann, "0"), left.at_ms(&ann, "1"), left.left_by(&ann).count()),
            (None, Some(0), LEFT_MAX)
        );
        let later = LEFT_REMEMBERED_MS + 1;
        left.note_left(&ann, "red".into(), later, later);
        assert_eq!(left.left_by(&ann).collect::<Vec<_>>(), [(&"red".into(), later)]);
        left.remove(&ann, "red");
        assert_eq!(left.users().count(), 0);
    }

    #[test]
    fn a_membership_left_again_keeps_the_last_time() {
        let (mut left, ann) = (LeftMemberships::default(), ann());
        left.note_left(&ann, "red".into(), 0, 0);
        left.note_left(&ann, "red".into(), LEFT_REMEMBERED_MS, LEFT_REMEMBERED_MS);
        left.note_left(&ann, "blue".into(), LEFT_REMEMBERED_MS + 1, LEFT_REMEMBERED_MS + 1);
        assert_eq!(left.at_ms(&ann, "red"), Some(LEFT_REMEMBERED_MS));
    }
}
