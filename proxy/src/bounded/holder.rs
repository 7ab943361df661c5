//! Holders of entries in a full table. The holder of the most entries has to free one.

use std::collections::HashMap;
use std::hash::Hash;

/// Number of the entry to evict for a new one: the newest entry of the holder with the most weight. `None` if the
/// holder of the new entry has as much weight. Each entry has a number, a holder and a weight; a higher number is
/// newer.
#[must_use]
pub(crate) fn newest_of_largest<K: Eq + Hash>(
    entries: impl Iterator<Item = (u64, K, usize)>,
    (new_server, weight): (Option<&K>, usize),
) -> Option<u64> {
    let mut holders = HashMap::<K, (usize, u64)>::new();
    for (number, holder, weight) in entries {
        let (sum, newest) = holders.entry(holder).or_default();
        (*sum, *newest) = (*sum + weight, number.max(*newest));
    }
    let own = new_server.and_then(|key| holders.get(key)).map_or(0, |(sum, _)| *sum);
    let (sum, newest) = holders.into_values().max()?;
    (sum > own + weight).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_holder_makes_room_for_smaller_ones_only() {
        let entries = || [(1, "a", 1), (2, "b", 1), (3, "b", 1), (4, "b", 1), (5, "a", 1)].into_iter();
        let chosen = |new_server: &str| newest_of_largest(entries(), (Some(&new_server), 1));
        assert_eq!((chosen("c"), chosen("a"), chosen("b")), (Some(4), None, None));
        assert_eq!(newest_of_largest(entries(), (None, 1)), Some(4));
        assert_eq!(newest_of_largest(entries(), (Some(&"c"), 3)), None, "it would be the largest itself");
        assert_eq!(newest_of_largest(std::iter::empty::<(u64, &str, usize)>(), (None, 0)), None);
    }
}
