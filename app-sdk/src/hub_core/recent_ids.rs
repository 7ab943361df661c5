//! Set of the ids that were added lately: bounded, and cheap to keep.

use std::collections::HashSet;
use std::mem;
use std::sync::Mutex;

use bytestring::ByteString;

use crate::sync::lock;

/// Ids of one generation; at least so many of the newest are remembered, and at most twice as many.
const GENERATION: usize = 8192;

/// Set of ids that forgets the oldest ones.
#[derive(Debug, Default)]
pub(crate) struct RecentIds(Mutex<IdGenerations>);

#[derive(Debug, Default)]
struct IdGenerations {
    young: HashSet<ByteString>,
    old: HashSet<ByteString>,
}

impl RecentIds {
    pub(crate) fn insert(&self, id: ByteString) {
        let mut ids = lock(&self.0);
        if ids.young.len() >= GENERATION {
            ids.old = mem::take(&mut ids.young);
        }
        ids.young.insert(id);
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        let ids = lock(&self.0);
        ids.young.contains(id) || ids.old.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_the_set_stays_small() {
        let ids = RecentIds::default();
        for number in 0..5 * GENERATION {
            ids.insert(number.to_string().into());
        }
        assert!((4 * GENERATION..5 * GENERATION).all(|number| ids.contains(&number.to_string())));
        assert!(!ids.contains("0"));
        let ids = lock(&ids.0);
        assert!(ids.young.len() + ids.old.len() <= 2 * GENERATION);
    }
}
