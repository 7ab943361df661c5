//! Registry of the app server instances at one address, and doubt about an unresponsive one. Pure.
//!
//! Most addresses have one instance at a time, so a new instance replaces the former one. If a replaced instance
//! answers again, the address has several, and new ones no longer replace others.

use std::mem;
use std::time::Duration;

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

/// Silence after which the name of an app server is resolved again.
const SUSPICION_TIMEOUT: Duration = Duration::from_secs(1);

/// Silence after which a second sign proves that an app server is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Interpretation of an app server's silence.
///
/// ```text
///  answers ──silent for 1 s──► DNS is queried again ──silent for 3 s──► doubted ──second sign──► gone
///     ▲                                                                    │
///     └──────────────────────────── any frame ─────────────────────────────┘
/// ```
///
/// Second signs: DNS no longer lists the address, the address refuses connections, or another start answers there.
/// Without one, the app server may be frozen or briefly disconnected, and the resume window decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AppDoubt {
    Answers,
    /// Silent for a moment: DNS should be queried again.
    Suspected,
    /// A second sign is sufficient.
    Doubted,
}

impl AppDoubt {
    /// Judges by the silence of each pool; `None` for a pool that can't be judged, such as a stopping one.
    pub(super) fn of(silences: impl Iterator<Item = Option<Duration>>) -> Self {
        // No pool, or a pool that can't be judged, counts as answering.
        match silences.min().flatten() {
            Some(silence) if silence >= SILENCE_TIMEOUT => Self::Doubted,
            Some(silence) if silence >= SUSPICION_TIMEOUT => Self::Suspected,
            _ => Self::Answers,
        }
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

    fn doubt(silences_ms: &[Option<u64>]) -> AppDoubt {
        AppDoubt::of(silences_ms.iter().map(|silence| silence.map(Duration::from_millis)))
    }

    #[test]
    fn an_app_server_is_doubted_when_all_of_its_pools_are_silent_for_three_seconds() {
        assert_eq!(doubt(&[]), AppDoubt::Answers);
        for (silences_ms, expected) in [
            ([Some(0), Some(9_000)], AppDoubt::Answers),
            ([Some(999), Some(9_000)], AppDoubt::Answers),
            ([Some(1_000), Some(9_000)], AppDoubt::Suspected),
            ([Some(2_999), Some(3_000)], AppDoubt::Suspected),
            ([Some(3_000), Some(3_500)], AppDoubt::Doubted),
            ([None, Some(9_000)], AppDoubt::Answers),
        ] {
            assert_eq!(doubt(&silences_ms), expected, "{silences_ms:?}");
        }
    }
}
