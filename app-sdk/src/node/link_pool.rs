//! Pool of links, and the choice of its send link. A pure value.
//!
//! The open slot with the lowest number when the choice is made; it stays the send link while its session lives, even
//! if its socket is away or a lower slot opens meanwhile, because moving would mix the order of what is under way.

use std::collections::BTreeMap;

/// The live link sessions of one node, and the one that carries all downward frames.
#[derive(Debug)]
pub(super) struct LinkPool<L> {
    live: BTreeMap<u32, L>,
    chosen: Option<u32>,
}

impl<L> Default for LinkPool<L> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), chosen: None }
    }
}

impl<L> LinkPool<L> {
    /// Adds the session of a slot.
    pub(super) fn open(&mut self, slot: u32, link: L) {
        self.live.insert(slot, link);
        self.chosen = self.chosen.or(Some(slot));
    }

    /// Removes the session of a slot. If it was the send link, the next one is chosen; one without a socket only when
    /// all are without.
    pub(super) fn end(&mut self, slot: u32, is_open: impl Fn(&L) -> bool) -> Option<L> {
        let ended = self.live.remove(&slot);
        if self.chosen == Some(slot) {
            let open = self.live.iter().find(|(_, link)| is_open(link));
            self.chosen = open.or_else(|| self.live.iter().next()).map(|(slot, _)| *slot);
        }
        ended
    }

    /// The send link; `None` when no session lives.
    pub(super) fn send_link(&self) -> Option<&L> {
        self.live.get(&self.chosen?)
    }

    /// Iterates over all live sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &L> {
        self.live.values()
    }

    /// Whether no session lives.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(slots: &[u32]) -> LinkPool<u32> {
        let mut pool = LinkPool::default();
        for &slot in slots {
            pool.open(slot, slot);
        }
        pool
    }

    #[test]
    fn the_first_link_to_open_is_the_send_link_and_stays_it() {
        let pool = pool(&[3, 0, 1]);
        assert_eq!(pool.send_link(), Some(&3));
    }

    #[test]
    fn when_the_send_link_ends_the_lowest_open_slot_is_next() {
        let mut pool = pool(&[3, 4, 1, 2]);
        assert_eq!(pool.end(3, |_| true), Some(3));
        assert_eq!(pool.send_link(), Some(&1));
        pool.open(0, 0);
        assert_eq!(pool.send_link(), Some(&1), "a lower slot that opens later changes nothing");
    }

    #[test]
    fn a_link_without_a_socket_is_chosen_only_when_all_are() {
        let mut some = pool(&[0, 1, 2]);
        some.end(0, |&slot| slot == 2);
        assert_eq!(some.send_link(), Some(&2));
        let mut none = pool(&[0, 1, 2]);
        none.end(0, |_| false);
        assert_eq!(none.send_link(), Some(&1));
    }

    #[test]
    fn the_end_of_another_link_changes_nothing() {
        let mut pool = pool(&[0, 1]);
        pool.end(1, |_| true);
        assert_eq!(pool.send_link(), Some(&0));
    }

    #[test]
    fn without_links_there_is_no_send_link() {
        let mut pool = pool(&[0]);
        pool.end(0, |_| true);
        assert!(pool.is_empty());
        assert_eq!(pool.send_link(), None);
        pool.open(2, 2);
        assert_eq!(pool.send_link(), Some(&2));
    }
}
