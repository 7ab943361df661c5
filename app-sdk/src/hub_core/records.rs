//! Recorded groups and users of a hub, and ids for the sends to them.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::RecordedNames;
use trunkline_protocol::pattern::Pattern;
use trunkline_protocol::service::RecordedSet;

use super::acks::QueryLimit;

/// Records of a hub without history, by default.
#[derive(Debug)]
pub(crate) struct Records {
    names: Vec<RecordedName>,
    /// Random prefix of the ids.
    prefix: String,
    sent: AtomicU64,
    hasher: RandomState,
    /// Limit of concurrent requests.
    pub(crate) requests: QueryLimit,
}

#[derive(Debug)]
struct RecordedName {
    is_user: bool,
    pattern: Pattern,
}

impl Records {
    /// Records of a manifest with valid patterns.
    pub(crate) fn new(recorded: &[RecordedNames]) -> Self {
        let names = recorded.iter().filter_map(|names| {
            Some(RecordedName { is_user: names.of_users, pattern: Pattern::new(&names.names).ok()? })
        });
        Self {
            names: names.collect(),
            prefix: random_id(),
            sent: AtomicU64::new(0),
            hasher: RandomState::new(),
            requests: QueryLimit::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn is_recorded(&self, set: &RecordedSet) -> bool {
        self.names.iter().any(|name| name.is_user == set.is_user && name.pattern.matches(&set.name))
    }

    /// A new id of a send.
    pub(crate) fn next_id(&self) -> ByteString {
        format!("{}-{}", self.prefix, self.sent.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// Number that distributes sets over nodes, equal for the same set.
    pub(crate) fn place_of(&self, set: &RecordedSet) -> usize {
        usize::try_from(self.hasher.hash_one(set) >> 33).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_users_have_patterns_of_their_own_and_ids_differ() {
        let names = |of_users, names: &str| RecordedNames { of_users, names: names.into(), messages: 1, age_ms: 1000 };
        let records = Records::new(&[names(false, "room-*"), names(true, "ann")]);
        assert!(records.is_recorded(&RecordedSet::group("room-1")) && records.is_recorded(&RecordedSet::user("ann")));
        assert!(!records.is_recorded(&RecordedSet::group("ann")) && !records.is_recorded(&RecordedSet::user("room-1")));
        assert_ne!(records.next_id(), records.next_id());
        assert!(Records::new(&[]).is_empty());
    }
}
