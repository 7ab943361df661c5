//! When each client of a shard is told to leave. Pure: it is given the time, and chance.
//!
//! ```text
//!  0        step      2 step     3 step     4 step
//!  ├──────x───┼─x────────┼────x─────┼────────x─┤     one leaves at some moment of each step
//! ```
//!
//! So they are spread evenly, and yet several shards, and nodes that are stopped together, don't fall into step.

use std::collections::VecDeque;
use std::time::Duration;

/// Those who are still to be told.
#[derive(Debug)]
pub(super) struct Departures<T> {
    waiting: VecDeque<T>,
    step: Duration,
    /// How many have been told.
    told: u32,
    next_at: Duration,
}

impl<T> Departures<T> {
    /// Spreads them over this time. `chance` gives numbers from 0 to 1.
    pub(super) fn new(all: Vec<T>, spread: Duration, mut chance: impl FnMut() -> f64) -> Self {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        let step = spread / count;
        Self { waiting: all.into(), step, told: 0, next_at: step.mul_f64(chance()) }
    }

    /// When the next one is due, since the beginning; `None` when all were told.
    pub(super) fn next_at(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }

    /// Whoever is due now, so long after the beginning. Called late it gives several.
    pub(super) fn next(&mut self, now: Duration, mut chance: impl FnMut() -> f64) -> Option<T> {
        if self.next_at > now {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.told = self.told.saturating_add(1);
        self.next_at = self.step * self.told + self.step.mul_f64(chance());
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(10);

    fn all(departures: &mut Departures<u32>, chance: &mut impl FnMut() -> f64) -> Vec<(Duration, u32)> {
        let mut all = Vec::new();
        while let Some(now) = departures.next_at() {
            if let Some(before) = now.checked_sub(Duration::from_nanos(1)) {
                assert_eq!(departures.next(before, &mut *chance), None);
            }
            all.push((now, departures.next(now, &mut *chance).unwrap()));
        }
        all
    }

    #[test]
    fn in_each_step_one_leaves_wherever_chance_has_it() {
        let numbers = [0.0, 0.999, 0.5, 0.25, 0.75];
        let mut index = 0;
        let mut chance = || {
            index += 1;
            numbers[index % numbers.len()]
        };
        let mut departures = Departures::new((0..100).collect(), SPREAD, &mut chance);
        let step = SPREAD / 100;
        for ((at, who), number) in all(&mut departures, &mut chance).into_iter().zip(0..) {
            assert_eq!(who, number);
            assert!(at >= step * number && at < step * (number + 1), "{who} at {at:?}");
        }
        assert_eq!(departures.next(SPREAD * 9, &mut chance), None);
    }

    #[test]
    fn who_looks_late_is_given_all_that_were_due() {
        let mut departures = Departures::new((0..10).collect(), SPREAD, || 0.5);
        let due = std::iter::from_fn(|| departures.next(SPREAD / 2, || 0.5)).count();
        assert_eq!(due, 5);
    }

    #[test]
    fn no_time_is_at_once_and_nobody_is_done() {
        let mut departures = Departures::new(vec![1, 2], Duration::ZERO, || 0.9);
        assert_eq!(all(&mut departures, &mut || 0.9), [(Duration::ZERO, 1), (Duration::ZERO, 2)]);
        assert_eq!(Departures::<u32>::new(Vec::new(), SPREAD, || 0.1).next_at(), None);
    }
}
