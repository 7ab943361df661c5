//! Expiry of access tokens, for client connections that close with their token.
//!
//! Stored apart from clients, which cost nothing without an expiry. By the system clock: after a suspended process
//! resumes, overdue connections close immediately.

use std::collections::{BTreeSet, HashMap};

use crate::engine::shard::slot::Slot;

/// Expiry times of tokens by client, in seconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct TokenExpiries {
    by_time: BTreeSet<(u64, Slot)>,
    by_slot: HashMap<Slot, u64>,
}

impl TokenExpiries {
    pub(crate) fn set(&mut self, slot: Slot, at_s: u64) {
        self.forget(slot);
        self.by_time.insert((at_s, slot));
        self.by_slot.insert(slot, at_s);
    }

    pub(crate) fn of(&self, slot: Slot) -> Option<u64> {
        self.by_slot.get(&slot).copied()
    }

    pub(crate) fn forget(&mut self, slot: Slot) {
        if let Some(at_s) = self.by_slot.remove(&slot) {
            self.by_time.remove(&(at_s, slot));
        }
    }

    /// Whether no token expires, so that the clock need not be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// Next client with an expired token, earliest first. Each is returned once.
    pub(crate) fn next_due(&mut self, now_s: u64) -> Option<Slot> {
        let &(_, slot) = self.by_time.first().filter(|(at_s, _)| *at_s <= now_s)?;
        self.forget(slot);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_tokens_are_due_once_the_earliest_first() {
        let mut expiries = TokenExpiries::default();
        for (slot, at_s) in [(1, 30), (2, 10), (3, 20)] {
            expiries.set(slot, at_s);
        }
        assert_eq!(expiries.next_due(9), None);
        assert_eq!(expiries.next_due(20), Some(2));
        assert_eq!(expiries.next_due(20), Some(3));
        assert_eq!(expiries.next_due(20), None);
    }

    #[test]
    fn a_freed_slot_is_not_due_and_leaves_nothing_behind() {
        let mut expiries = TokenExpiries::default();
        expiries.set(1, 10);
        expiries.forget(1);
        expiries.forget(7);
        assert_eq!(expiries.next_due(99), None);
        assert!(expiries.by_slot.is_empty() && expiries.is_empty());
    }
}
