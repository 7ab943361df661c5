//! Names shared by several nodes: harmless, but confusing for operators.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_protocol::fleet::{BEAT_INTERVAL_MS, LATE_AFTER_MS};

/// Number of beats before a shared name is reported. After a power failure, the previous start of a node may appear
/// alive until it is late.
const BEATS: u64 = LATE_AFTER_MS / BEAT_INTERVAL_MS + 2;

/// Shared names, with the number of beats each has been shared.
#[derive(Debug, Default)]
pub(super) struct SharedNames(BTreeMap<String, u64>);

impl SharedNames {
    /// Updates the shared names at a beat; returns those to report now.
    pub(super) fn update(&mut self, shared: BTreeSet<String>) -> Vec<String> {
        let before = std::mem::take(&mut self.0);
        let beats = |name: &String| before.get(name).map_or(1, |beats| beats.saturating_add(1));
        self.0 = shared.into_iter().map(|name| (beats(&name), name)).map(|(beats, name)| (name, beats)).collect();
        self.0.iter().filter(|(_, beats)| **beats == BEATS).map(|(name, _)| name.clone()).collect()
    }
}

/// Returns names that occur more than once.
pub(super) fn shared<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_once_of_a_name_that_stays_shared() {
        let mut names = SharedNames::default();
        let mut told = |nodes: &[&str], beats: u64| -> Vec<String> {
            (0..beats).flat_map(|_| names.update(shared(nodes.iter().copied()))).collect()
        };
        assert_eq!(told(&["a", "b", "a"], BEATS - 1), Vec::<String>::new());
        assert_eq!(told(&["a", "b"], 1), Vec::<String>::new(), "it had only started again");
        assert_eq!(told(&["a", "b", "a", "a"], 10 * BEATS), ["a"]);
        assert_eq!(told(&["b", "b", "a"], BEATS), ["b"]);
    }
}
