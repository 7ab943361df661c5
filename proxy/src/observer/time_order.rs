//! Merges the pieces of several shards by time. Each piece is held until all shards have reported up to its time. Pure.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct TimeOrder<T>(Vec<(Duration, T)>);

impl<T> TimeOrder<T> {
    /// Adds pieces of one shard, in order.
    pub(super) fn add(&mut self, pieces: impl IntoIterator<Item = (Duration, T)>) {
        self.0.extend(pieces);
    }

    /// Takes pieces up to the time that all shards have reported completely, oldest first.
    pub(super) fn settle(&mut self, told_until: Duration) -> impl Iterator<Item = T> {
        // Stable sort keeps the order within a shard.
        self.0.sort_by_key(|(at, _)| *at);
        let settled = self.0.partition_point(|(at, _)| *at <= told_until);
        self.0.drain(..settled).map(|(_, piece)| piece)
    }
}

impl<T> Default for TimeOrder<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn younger_pieces_wait_and_those_of_one_time_keep_their_order() {
        let at = Duration::from_millis;
        let mut order = TimeOrder::default();
        order.add([(at(3), "c"), (at(9), "f")]);
        order.add([(at(1), "a"), (at(3), "d"), (at(2), "b")]);
        assert_eq!(order.settle(at(5)).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        order.add([(at(7), "e")]);
        assert_eq!(order.settle(at(9)).collect::<Vec<_>>(), ["e", "f"]);
    }
}
