//! Set of the ids that were added lately: bounded, and cheap to keep.

use std::collections::HashSet;
use std::mem;

use bytestring::ByteString;

/// Ids of one generation; at least so many of the newest are remembered, and at most twice as many.
const GENERATION: usize = 8192;

/// Set of ids that forgets the oldest ones.
#[derive(Debug, Default)]
pub(super) struct RecentIds {
    young: HashSet<ByteString>,
    old: HashSet<ByteString>,
}

impl RecentIds {
    pub(super) fn insert(&mut self, id: ByteString) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(id);
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_the_set_stays_small() {
        let mut ids = RecentIds::default();
        for number in 0..5 * GENERATION {
            ids.insert(number.to_string().into());
        }
        assert!((4 * GENERATION..5 * GENERATION).all(|number| ids.contains(&number.to_string())));
        assert!(!ids.contains("0") && ids.young.len() + ids.old.len() <= 2 * GENERATION);
    }
}
