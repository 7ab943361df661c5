//! Client connections that end with their access tokens.
//!
//! Kept beside the clients, so that those without such an end pay nothing, and by the system's clock: a process that was
//! frozen closes late ones at once.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::{Ending, Shard};
use crate::clock::unix_seconds;
use crate::shard::directory::Slot;

/// Whose token ends when, in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_time: BTreeSet<(u64, Slot)>,
    by_slot: HashMap<Slot, u64>,
}

impl Expiries {
    fn set(&mut self, slot: Slot, at_s: u64) {
        self.forget(slot);
        self.by_time.insert((at_s, slot));
        self.by_slot.insert(slot, at_s);
    }

    /// The place is free, or its end has come.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(at_s) = self.by_slot.remove(&slot) {
            self.by_time.remove(&(at_s, slot));
        }
    }

    fn next_due(&mut self, now_s: impl FnOnce() -> u64) -> Option<Slot> {
        let &(at_s, slot) = self.by_time.first()?;
        if at_s > now_s() {
            return None;
        }
        self.forget(slot);
        Some(slot)
    }
}

impl Shard {
    /// Has a client closed at this time, in seconds since 1970.
    pub(crate) fn close_at(&self, slot: Slot, at_s: u64) {
        self.expiries.borrow_mut().set(slot, at_s);
    }

    /// Closes those whose time has come.
    pub(super) fn close_expired(self: &Rc<Self>) {
        loop {
            let Some(slot) = self.expiries.borrow_mut().next_due(unix_seconds) else { return };
            self.end(slot, &Ending::token_expired());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_whose_time_has_come_are_due_once_the_earliest_first() {
        let mut expiries = Expiries::default();
        for (slot, at_s) in [(1, 30), (2, 10), (3, 20)] {
            expiries.set(slot, at_s);
        }
        assert_eq!(expiries.next_due(|| 9), None);
        assert_eq!(expiries.next_due(|| 20), Some(2));
        assert_eq!(expiries.next_due(|| 20), Some(3));
        assert_eq!(expiries.next_due(|| 20), None);
    }

    #[test]
    fn who_has_left_is_not_due_and_leaves_nothing_behind() {
        let mut expiries = Expiries::default();
        expiries.set(1, 10);
        expiries.forget(1);
        expiries.forget(7);
        assert_eq!(expiries.next_due(|| 99), None);
        assert!(expiries.by_slot.is_empty() && expiries.by_time.is_empty());
    }
}
