//! Slots of client connections in their shard, and walks over them in short steps.

use std::ops::Range;

/// Index of a client connection in its shard. Slots are reused; a [`Serial`] identifies the connection.
pub(crate) type Slot = u32;

/// Number of a client connection, unique in its shard. Distinguishes connections that use one slot in turn.
pub(crate) type Serial = u32;

/// Maximum number of slots per step, some tens of microseconds.
const STEP: usize = 1024;

#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotWalk {
    at: usize,
    visited: usize,
}

impl SlotWalk {
    /// Walk over all slots once, starting here and wrapping around.
    pub(crate) fn around(from: usize) -> Self {
        Self { at: from, visited: 0 }
    }

    /// Walk over the slots from here to the end.
    pub(crate) fn onward(from: usize) -> Self {
        Self { at: from, visited: from }
    }

    pub(crate) fn step(&mut self, slots: usize) -> Range<usize> {
        if self.at >= slots {
            self.at = self.at.checked_rem(slots).unwrap_or_default();
        }
        let length = STEP.min(slots.saturating_sub(self.visited)).min(slots.saturating_sub(self.at));
        let range = self.at..self.at.saturating_add(length);
        (self.at, self.visited) = (range.end, self.visited.saturating_add(length));
        range
    }

    pub(crate) fn is_over(&self, slots: usize) -> bool {
        self.visited >= slots
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(mut walk: SlotWalk, slots: usize) -> Vec<usize> {
        let mut visited = Vec::new();
        while !walk.is_over(slots) {
            visited.extend(walk.step(slots));
        }
        visited
    }

    #[test]
    fn a_walk_around_visits_each_slot_once() {
        let slots = 2 * STEP + 5;
        for from in [0, 7, STEP, slots, usize::MAX / 2] {
            let mut seen = visited(SlotWalk::around(from), slots);
            assert_eq!(seen.first(), Some(&(from % slots)));
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..slots), "from {from}");
        }
    }

    #[test]
    fn a_walk_onward_visits_the_slots_behind_and_ends() {
        let slots = 2 * STEP + 5;
        assert!(visited(SlotWalk::onward(7), slots).into_iter().eq(7..slots));
    }

    #[test]
    fn a_walk_ends_when_slots_have_become_fewer() {
        for mut walk in [SlotWalk::around(7), SlotWalk::onward(7)] {
            assert!(walk.step(0).is_empty() && walk.is_over(0));
        }
        assert!(SlotWalk::onward(7).is_over(5));
    }
}
