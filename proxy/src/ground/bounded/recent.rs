//! Cache of recent keys: a limited number, each until a deadline.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeFrom;

#[derive(Debug)]
pub(crate) struct Recent<K, V, T> {
    limit: usize,
    by_key: BTreeMap<K, (T, V)>,
    /// Insertions, oldest first. A key inserted twice is listed twice.
    order: VecDeque<(T, K)>,
}

impl<K: Clone + Ord, V, T: Copy + Ord> Recent<K, V, T> {
    /// Creates a cache of this many insertions. Beyond it, the oldest are evicted.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, by_key: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Stores a value until a deadline, replacing the previous value of its key.
    pub(crate) fn insert(&mut self, key: K, value: V, until: T) {
        self.order.push_back((until, key.clone()));
        self.by_key.insert(key, (until, value));
        if self.order.len() > self.limit {
            self.evict();
        }
    }

    /// Evicts expired values from the oldest on, up to the first that is still valid.
    pub(crate) fn expire(&mut self, now: T) {
        while self.order.front().is_some_and(|(until, _)| *until < now) {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        if self.by_key.get(&key).is_some_and(|(last, _)| *last == until) {
            self.by_key.remove(&key);
        }
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.by_key.remove(key);
    }

    pub(crate) fn range(&self, from: RangeFrom<K>) -> impl Iterator<Item = (&K, &V)> {
        self.by_key.range(from).map(|(key, (_, value))| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_until_their_time() {
        let mut recent = Recent::new(3);
        for (key, until) in [("a", 10), ("b", 11), ("c", 12), ("d", 13)] {
            recent.insert(key, until, until);
        }
        assert_eq!(recent.keys().collect::<Vec<_>>(), [&"b", &"c", &"d"]);
        recent.expire(11);
        assert_eq!(recent.get("b"), Some(&11));
        recent.expire(12);
        recent.remove(&"d");
        assert_eq!(recent.range("a"..).collect::<Vec<_>>(), [(&"c", &12)]);
        assert_eq!(recent.order.len(), 2);
        recent.expire(100);
        assert_eq!((recent.keys().count(), recent.order.len()), (0, 0));
    }

    #[test]
    fn a_key_that_is_inserted_again_is_kept_from_then_on() {
        let mut recent = Recent::new(10);
        recent.insert("a", 1, 10);
        recent.insert("a", 2, 20);
        recent.expire(15);
        assert_eq!(recent.get("a"), Some(&2));
    }
}
