//! Which open link of a pool is the lane. A pure value.
//!
//! The open slot with the lowest number when the choice is made; it stays the lane while its link lives, even if
//! a lower slot opens meanwhile, because moving would mix the order of what is under way.

use std::collections::BTreeMap;

/// The open links of one node, and the one that carries everything down.
#[derive(Debug)]
pub(crate) struct Lanes<L> {
    open: BTreeMap<u32, L>,
    chosen: Option<u32>,
}

impl<L> Default for Lanes<L> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), chosen: None }
    }
}

impl<L> Lanes<L> {
    /// A link is open in this slot.
    pub(crate) fn open(&mut self, slot: u32, link: L) {
        self.open.insert(slot, link);
        self.chosen = self.chosen.or(Some(slot));
    }

    /// The link of this slot has ended; if it was the lane, the next one is chosen.
    pub(crate) fn end(&mut self, slot: u32) -> Option<L> {
        let ended = self.open.remove(&slot);
        if self.chosen == Some(slot) {
            self.chosen = self.open.keys().next().copied();
        }
        ended
    }

    /// The lane; `None` when no link is open.
    pub(crate) fn lane(&self) -> Option<&L> {
        self.open.get(&self.chosen?)
    }

    /// Whether no link is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(slots: &[u32]) -> Lanes<u32> {
        let mut lanes = Lanes::default();
        for &slot in slots {
            lanes.open(slot, slot);
        }
        lanes
    }

    #[test]
    fn the_first_to_open_is_the_lane_and_stays_it() {
        let lanes = lanes(&[3, 0, 1]);
        assert_eq!(lanes.lane(), Some(&3));
    }

    #[test]
    fn when_the_lane_ends_the_lowest_open_slot_is_next() {
        let mut lanes = lanes(&[3, 4, 1, 2]);
        assert_eq!(lanes.end(3), Some(3));
        assert_eq!(lanes.lane(), Some(&1));
        lanes.open(0, 0);
        assert_eq!(lanes.lane(), Some(&1), "a lower slot that opens later changes nothing");
    }

    #[test]
    fn the_end_of_another_link_changes_nothing() {
        let mut lanes = lanes(&[0, 1]);
        lanes.end(1);
        assert_eq!(lanes.lane(), Some(&0));
    }

    #[test]
    fn without_links_there_is_no_lane() {
        let mut lanes = lanes(&[0]);
        lanes.end(0);
        assert!(lanes.is_empty());
        assert_eq!(lanes.lane(), None);
        lanes.open(2, 2);
        assert_eq!(lanes.lane(), Some(&2));
    }
}
