//! Holders of entries in a full table. The holder with the most weight has to free its newest entry.
//!
//! Finding the largest holder takes a pass over the table, which serves all new entries for [`pass_interval`]. So a
//! flood of entries costs a bounded share of the time.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// Interval between passes for each entry of the table. A pass takes some 50 ns for each.
const PASS_INTERVAL_PER_ENTRY: Duration = Duration::from_micros(2);

/// Time for which the result of a pass over a table of this size is used.
#[must_use]
pub(crate) fn pass_interval(entries: usize) -> Duration {
    PASS_INTERVAL_PER_ENTRY.saturating_mul(u32::try_from(entries).unwrap_or(u32::MAX))
}

/// Holders in a table, by weight, with their entries.
#[derive(Debug)]
pub(crate) struct Holders<K> {
    by_key: HashMap<K, Holding>,
    by_weight: BTreeSet<(usize, K)>,
    weight: usize,
}

#[derive(Debug, Default)]
struct Holding {
    weight: usize,
    /// Numbers and weights of the entries, oldest first.
    entries: Vec<(u64, usize)>,
}

impl<K> Default for Holders<K> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), by_weight: BTreeSet::new(), weight: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord> Holders<K> {
    /// Collects the holders of entries. Each entry has a number, a holder and a weight; later entries are newer.
    pub(crate) fn of(entries: impl Iterator<Item = (u64, K, usize)>) -> Self {
        let (mut by_key, mut sum) = (HashMap::<K, Holding>::new(), 0);
        for (number, holder, weight) in entries {
            let holding = by_key.entry(holder).or_default();
            holding.weight += weight;
            holding.entries.push((number, weight));
            sum += weight;
        }
        let by_weight = by_key.iter().map(|(key, holding)| (holding.weight, key.clone())).collect();
        Self { by_key, by_weight, weight: sum }
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Takes the number of the entry to evict for a new one: the newest entry of the holder with the most weight.
    /// `None` if the new entry's holder would have as much.
    pub(crate) fn newest_of_largest(&mut self, (new_holder, weight): (Option<&K>, usize)) -> Option<u64> {
        let own = new_holder.and_then(|key| self.by_key.get(key)).map_or(0, |holding| holding.weight);
        while let Some((sum, key)) = self.by_weight.pop_last() {
            if sum <= own.saturating_add(weight) {
                self.by_weight.insert((sum, key));
                return None;
            }
            // A holder without known entries has only new ones, which the next pass finds.
            let Some(holding) = self.by_key.get_mut(&key) else { continue };
            let Some((number, weight)) = holding.entries.pop() else { continue };
            holding.weight -= weight;
            self.weight -= weight;
            self.by_weight.insert((holding.weight, key));
            return Some(number);
        }
        None
    }

    pub(crate) fn add(&mut self, key: &K, weight: usize) {
        let holding = self.by_key.entry(key.clone()).or_default();
        self.by_weight.remove(&(holding.weight, key.clone()));
        holding.weight += weight;
        self.weight += weight;
        self.by_weight.insert((holding.weight, key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_holder_makes_room_for_smaller_ones_only() {
        let entries = || [(1, "a", 1), (2, "b", 1), (3, "b", 1), (4, "b", 1), (5, "a", 1)].into_iter();
        let chosen =
            |new_holder: Option<&str>, weight| Holders::of(entries()).newest_of_largest((new_holder.as_ref(), weight));
        assert_eq!([chosen(Some("c"), 1), chosen(Some("a"), 1), chosen(Some("b"), 1)], [Some(4), None, None]);
        assert_eq!(chosen(None, 1), Some(4));
        assert_eq!(chosen(Some("c"), 3), None, "it would be the largest itself");
        assert_eq!(Holders::of(std::iter::empty::<(u64, &str, usize)>()).newest_of_largest((None, 0)), None);
    }

    #[test]
    fn one_pass_serves_many_newcomers() {
        let entries = (0..90).map(|number| (number, number % 3, 1));
        let mut holders = Holders::of(entries.chain((90..100).map(|number| (number, 0, 1))));
        let mut chosen = Vec::new();
        for new_holder in 10..1000 {
            let Some(number) = holders.newest_of_largest((Some(&new_holder), 1)) else { break };
            holders.add(&new_holder, 1);
            chosen.push(number);
        }
        assert_eq!(chosen[..10], [99, 98, 97, 96, 95, 94, 93, 92, 91, 90], "the largest, newest first");
        assert_eq!(chosen.len(), 97, "until nobody has more than one");
        holders.add(&7, 5);
        assert_eq!(holders.newest_of_largest((Some(&8), 1)), None, "the new entries of 7 have no numbers yet");
    }
}
