//! Bounded data structures for general use: permits, budgets and tables with a limit. They are independent of their
//! contents.

mod budget;
mod first_names;
mod holder;
mod lease;
mod permit;
mod recent;
mod turn;

use std::collections::VecDeque;

use slab::Slab;

pub(crate) use budget::{Budget, BudgetShare, ByteBudget, largest};
pub(crate) use first_names::FirstNames;
pub(crate) use holder::{Holders, pass_interval};
pub(crate) use lease::{Lease, LeaseTable, Leases};
pub(crate) use permit::{Full, Partitions, Permit, Permits, fair_share};
pub(crate) use recent::Recent;
pub(crate) use turn::{Turn, TurnLine, TurnSource, Turns};

#[derive(Debug)]
pub(crate) struct Deadlines<T>(VecDeque<(u32, T)>);

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Deadlines<T> {
    pub(crate) fn push(&mut self, item: T, until: u32) {
        let place = self.0.partition_point(|(other, _)| *other <= until);
        self.0.insert(place, (until, item));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.0.iter().map(|(until, item)| (*until, item))
    }

    pub(crate) fn take_due(&mut self, now: u32) -> Vec<T> {
        let due = self.0.partition_point(|(until, _)| *until <= now);
        let due = self.0.drain(..due).map(|(_, item)| item).collect();
        shrink_queue(&mut self.0);
        due
    }
}

/// Number of entries for which a table always keeps memory.
const KEPT_ENTRIES: usize = 1024;

/// Shrinks a queue when less than a quarter of its capacity is in use.
pub(crate) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if is_spare(queue.len(), queue.capacity()) {
        queue.shrink_to(2 * queue.len());
    }
}

/// Shrinks a slab, down to its last entry, when less than a quarter of its capacity is in use.
pub(crate) fn shrink_slab<T>(slab: &mut Slab<T>) {
    if is_spare(slab.len(), slab.capacity()) {
        slab.shrink_to_fit();
    }
}

fn is_spare(used: usize, capacity: usize) -> bool {
    capacity > KEPT_ENTRIES && used < capacity / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_due_once_at_its_tick() {
        let mut deadlines = Deadlines::default();
        for (item, until) in [("b", 105), ("c", 106), ("a", 104), ("d", 106)] {
            deadlines.push(item, until);
        }
        assert_eq!(deadlines.take_due(103), [""; 0]);
        assert_eq!(deadlines.take_due(105), ["a", "b"]);
        assert_eq!(deadlines.iter().collect::<Vec<_>>(), [(106, &"c"), (106, &"d")]);
        assert_eq!(deadlines.take_due(200), ["c", "d"]);
        assert_eq!(deadlines.take_due(300), [""; 0]);
    }

    #[test]
    fn a_queue_that_is_nearly_empty_shrinks() {
        let mut queue: VecDeque<u64> = (0..100_000).collect();
        shrink_queue(&mut queue);
        assert!(queue.capacity() >= 100_000);
        queue.truncate(10);
        shrink_queue(&mut queue);
        assert!(queue.capacity() <= KEPT_ENTRIES);
        assert!(queue.iter().copied().eq(0..10));
    }

    #[test]
    fn a_slab_shrinks_to_its_last_entry() {
        let mut slab = Slab::new();
        let keys: Vec<usize> = (0..100_000).map(|number| slab.insert(number)).collect();
        keys.iter().filter(|key| **key != 5).for_each(|key| {
            slab.remove(*key);
        });
        shrink_slab(&mut slab);
        assert!(slab.capacity() <= KEPT_ENTRIES);
        assert_eq!(slab.get(5), Some(&5));
    }
}
