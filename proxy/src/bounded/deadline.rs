//! Deadlines: items due at a tick, ordered by tick.

use std::collections::VecDeque;

use super::shrink::shrink_queue;

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
}
