//! Registry of the app server instances at one address. Pure.
//!
//! Most addresses have one instance at a time, so a new instance replaces the former one. If a replaced instance
//! answers again, the address has several, and new ones no longer replace others.

use std::mem;

/// Maximum number of remembered instances that were given up. Older ones are irrelevant.
const GIVEN_UP_KEPT: usize = 16;

/// Instances at one address, each with a value.
#[derive(Debug)]
pub(super) struct AppInstances<T> {
    known: Vec<(String, T)>,
    given_up: Vec<String>,
    are_several: bool,
}

/// Result of an answer from an instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sighting<T> {
    Known,
    /// New instance that replaces the former ones; contains their values.
    Successor(Vec<T>),
    /// A former instance has returned, so the address has several instances.
    FirstOfSeveral,
    /// New instance at an address that has several.
    OneOfSeveral,
}

impl<T> Default for AppInstances<T> {
    fn default() -> Self {
        Self { known: Vec::new(), given_up: Vec::new(), are_several: false }
    }
}

impl<T> AppInstances<T> {
    /// Records an answer of an instance. The caller adds it unless it is known.
    pub(super) fn record(&mut self, instance: &str) -> Sighting<T> {
        if self.known.iter().any(|(known, _)| known == instance) {
            return Sighting::Known;
        }
        if self.are_several {
            return Sighting::OneOfSeveral;
        }
        if self.given_up.iter().any(|gone| gone == instance) {
            self.are_several = true;
            return Sighting::FirstOfSeveral;
        }
        let (names, before): (Vec<_>, Vec<_>) = mem::take(&mut self.known).into_iter().unzip();
        self.given_up.extend(names);
        let surplus = self.given_up.len().saturating_sub(GIVEN_UP_KEPT);
        self.given_up.drain(..surplus);
        Sighting::Successor(before)
    }

    pub(super) fn add(&mut self, instance: String, value: T) {
        self.known.push((instance, value));
    }

    /// Removes instances that are not `alive`, except the last added, and returns their values: an address with several
    /// instances would accumulate dead ones.
    pub(super) fn remove_dead(&mut self, alive: impl Fn(&T) -> bool) -> Vec<T> {
        let last = self.known.pop();
        let (kept, gone) = mem::take(&mut self.known).into_iter().partition(|(_, value)| alive(value));
        self.known = kept;
        self.known.extend(last);
        let gone: Vec<(String, T)> = gone;
        gone.into_iter().map(|(_, value)| value).collect()
    }

    pub(super) fn clear(&mut self) -> Vec<T> {
        mem::take(&mut self.known).into_iter().map(|(_, value)| value).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.known.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(instances: &mut AppInstances<u32>, name: &str, value: u32) -> Sighting<u32> {
        let sighting = instances.record(name);
        if sighting != Sighting::Known {
            instances.add(name.into(), value);
        }
        sighting
    }

    #[test]
    fn a_new_instance_replaces_the_former_one() {
        let mut instances = AppInstances::default();
        assert_eq!(record(&mut instances, "a", 1), Sighting::Successor(vec![]));
        assert_eq!(record(&mut instances, "a", 1), Sighting::Known);
        assert_eq!(record(&mut instances, "b", 2), Sighting::Successor(vec![1]));
        assert_eq!(record(&mut instances, "c", 3), Sighting::Successor(vec![2]));
        assert_eq!(instances.values().collect::<Vec<_>>(), [&3]);
    }

    #[test]
    fn a_former_instance_that_answers_again_shows_that_there_are_several_and_all_are_kept() {
        let mut instances = AppInstances::default();
        record(&mut instances, "a", 1);
        record(&mut instances, "b", 2);
        assert_eq!(record(&mut instances, "a", 3), Sighting::FirstOfSeveral);
        assert_eq!(record(&mut instances, "c", 4), Sighting::OneOfSeveral);
        assert_eq!(record(&mut instances, "b", 2), Sighting::Known);
        assert_eq!(instances.values().count(), 3);
        assert_eq!(instances.remove_dead(|value| *value == 2), [3]);
        assert_eq!(instances.values().collect::<Vec<_>>(), [&2, &4]);
        assert_eq!(instances.clear(), [2, 4]);
        assert!(instances.is_empty());
    }
}
