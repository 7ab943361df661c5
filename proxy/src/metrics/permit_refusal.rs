//! Counters of refused permits, by resource and by the key whose share was used up.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Maximum number of resources and keys with their own counters. Each is a line in every scrape.
const KEYS_MAX: usize = 1000;

/// Key that counts all others.
const OTHERS: &str = "(others)";

#[derive(Debug, Default)]
pub(crate) struct PermitRefusals(Mutex<BTreeMap<(&'static str, Box<str>), u64>>);

impl PermitRefusals {
    /// Counts a refusal. `key` is the holder of an exhausted share, or the exhausted limit in parentheses.
    pub(crate) fn count(&self, what: &'static str, key: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_room = counts.len() < KEYS_MAX || counts.contains_key(&(what, key.into()));
        *counts.entry((what, if is_room { key } else { OTHERS }.into())).or_default() += 1;
    }

    pub(crate) fn all(&self) -> Vec<(&'static str, Box<str>, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((what, key), count)| (*what, key.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_counter_and_keys_beyond_the_limit_share_one() {
        let refusals = PermitRefusals::default();
        for number in 0..2 * KEYS_MAX {
            refusals.count("links", &number.to_string());
        }
        refusals.count("links", "7");
        let all = refusals.all();
        let count = |key: &str| all.iter().find(|(_, known, _)| **known == *key).map(|(.., count)| *count);
        assert_eq!((count("7"), count(OTHERS), all.len()), (Some(2), Some(KEYS_MAX as u64), KEYS_MAX + 1));
    }
}
