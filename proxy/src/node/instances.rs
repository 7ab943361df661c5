//! Which instances answer at one address. Pure.
//!
//! Behind most addresses lives one at a time, so another one means that the one before is gone. When one answers that
//! was given up for that, several live there, and none is given up for another any more.

use std::mem;

/// Instances that were given up and are still known again; the rest is too long ago to matter.
const GIVEN_UP_KEPT: usize = 16;

/// The instances at one address, each with what belongs to it.
#[derive(Debug)]
pub(super) struct Instances<T> {
    known: Vec<(String, T)>,
    given_up: Vec<String>,
    are_several: bool,
}

/// What it means that an instance answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Met<T> {
    Known,
    /// It is the next one: those before it are gone.
    Next(Vec<T>),
    /// From now on it is known that several live here.
    Several,
    /// One more of several.
    Another,
}

impl<T> Default for Instances<T> {
    fn default() -> Self {
        Self { known: Vec::new(), given_up: Vec::new(), are_several: false }
    }
}

impl<T> Instances<T> {
    /// An instance answers; a new one is to be added then.
    pub(super) fn meet(&mut self, instance: &str) -> Met<T> {
        if self.known.iter().any(|(known, _)| known == instance) {
            return Met::Known;
        }
        if self.are_several {
            return Met::Another;
        }
        if self.given_up.iter().any(|gone| gone == instance) {
            self.are_several = true;
            return Met::Several;
        }
        let (names, before): (Vec<_>, Vec<_>) = mem::take(&mut self.known).into_iter().unzip();
        self.given_up.extend(names);
        let surplus = self.given_up.len().saturating_sub(GIVEN_UP_KEPT);
        self.given_up.drain(..surplus);
        Met::Next(before)
    }

    /// Adds a new one.
    pub(super) fn add(&mut self, instance: String, value: T) {
        self.known.push((instance, value));
    }

    /// Forgets those, but for the one that was added last, that are not `alive`; where several live, somebody has to.
    pub(super) fn forget(&mut self, alive: impl Fn(&T) -> bool) -> Vec<T> {
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

    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.known.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(instances: &mut Instances<u32>, name: &str, value: u32) -> Met<u32> {
        let met = instances.meet(name);
        if met != Met::Known {
            instances.add(name.into(), value);
        }
        met
    }

    #[test]
    fn where_one_lives_at_a_time_the_next_one_means_that_the_one_before_is_gone() {
        let mut instances = Instances::default();
        assert_eq!(meet(&mut instances, "a", 1), Met::Next(vec![]));
        assert_eq!(meet(&mut instances, "a", 1), Met::Known);
        assert_eq!(meet(&mut instances, "b", 2), Met::Next(vec![1]));
        assert_eq!(meet(&mut instances, "c", 3), Met::Next(vec![2]));
        assert_eq!(instances.all().collect::<Vec<_>>(), [&3]);
    }

    #[test]
    fn one_that_comes_back_shows_that_several_live_there_and_all_are_kept_from_then_on() {
        let mut instances = Instances::default();
        meet(&mut instances, "a", 1);
        meet(&mut instances, "b", 2);
        assert_eq!(meet(&mut instances, "a", 3), Met::Several);
        assert_eq!(meet(&mut instances, "c", 4), Met::Another);
        assert_eq!(meet(&mut instances, "b", 2), Met::Known);
        assert_eq!(instances.all().count(), 3);
        assert_eq!(instances.forget(|value| *value == 2), [3]);
        assert_eq!(instances.all().collect::<Vec<_>>(), [&2, &4]);
        assert_eq!(instances.clear(), [2, 4]);
        assert!(instances.is_empty());
    }
}
