//! Which link of a pool is the lane. A pure value.
//!
//! The open slot with the lowest number when the choice is made; it stays the lane while its session lives, even if its
//! socket is away or a lower slot opens meanwhile, because moving would mix the order of what is under way.

use std::collections::BTreeMap;

/// The links of one node whose sessions live, and the one that carries everything down.
#[derive(Debug)]
pub(crate) struct Lanes<L> {
    live: BTreeMap<u32, L>,
    chosen: Option<u32>,
}

impl<L> Default for Lanes<L> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), chosen: None }
    }
}

impl<L> Lanes<L> {
    /// A session begins in this slot.
    pub(crate) fn open(&mut self, slot: u32, link: L) {
        self.live.insert(slot, link);
        self.chosen = self.chosen.or(Some(slot));
    }

    /// The session of this slot is over; if it was the lane, the next one is chosen, one without a socket only when all
    /// are without.
    pub(crate) fn end(&mut self, slot: u32, is_open: impl Fn(&L) -> bool) -> Option<L> {
        let ended = self.live.remove(&slot);
        if self.chosen == Some(slot) {
            let open = self.live.iter().find(|(_, link)| is_open(link));
            self.chosen = open.or_else(|| self.live.iter().next()).map(|(slot, _)| *slot);
        }
        ended
    }

    /// The lane; `None` when no session lives.
    pub(crate) fn lane(&self) -> Option<&L> {
        self.live.get(&self.chosen?)
    }

    /// Whether no session lives.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
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
        assert_eq!(lanes.end(3, |_| true), Some(3));
        assert_eq!(lanes.lane(), Some(&1));
        lanes.open(0, 0);
        assert_eq!(lanes.lane(), Some(&1), "a lower slot that opens later changes nothing");
    }

    #[test]
    fn a_link_that_is_away_is_chosen_only_when_all_are() {
        let mut some = lanes(&[0, 1, 2]);
        some.end(0, |&slot| slot == 2);
        assert_eq!(some.lane(), Some(&2));
        let mut none = lanes(&[0, 1, 2]);
        none.end(0, |_| false);
        assert_eq!(none.lane(), Some(&1));
    }

    #[test]
    fn the_end_of_another_link_changes_nothing() {
        let mut lanes = lanes(&[0, 1]);
        lanes.end(1, |_| true);
        assert_eq!(lanes.lane(), Some(&0));
    }

    #[test]
    fn without_links_there_is_no_lane() {
        let mut lanes = lanes(&[0]);
        lanes.end(0, |_| true);
        assert!(lanes.is_empty());
        assert_eq!(lanes.lane(), None);
        lanes.open(2, 2);
        assert_eq!(lanes.lane(), Some(&2));
    }
}
