//! Drain schedule: the close times of a shard's clients. Pure: time and randomness are arguments.
//!
//! ```text
//!  0        step      2 step     3 step     4 step
//!  ├──────x───┼─x────────┼────x─────┼────────x─┤     one close at a random time in each step
//! ```
//!
//! Closes are spread evenly, without synchronising shards, or nodes that stop simultaneously.

use std::collections::VecDeque;
use std::time::Duration;

use trunkline_protocol::id::random_bytes;

/// Maximum interval between two closes: ten reconnects per second are harmless, and a node with few clients finishes
/// early.
const CLOSE_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct DrainSchedule<T> {
    waiting: VecDeque<T>,
    step: Duration,
    /// Number of clients already taken.
    taken: u32,
    next_at: Duration,
}

impl<T> DrainSchedule<T> {
    /// Spreads the clients over this period. `chance` returns numbers from 0 to 1.
    pub(crate) fn new(all: Vec<T>, spread: Duration, mut chance: impl FnMut() -> f64) -> Self {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        let step = spread / count;
        Self { waiting: all.into(), step, taken: 0, next_at: step.mul_f64(chance()) }
    }

    /// Time of the next close since the start; `None` after the last one.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }

    /// Next client due at this time since the start. A late caller gets several in turn.
    pub(crate) fn next(&mut self, now: Duration, mut chance: impl FnMut() -> f64) -> Option<T> {
        if self.next_at > now {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.taken = self.taken.saturating_add(1);
        self.next_at = self.step * self.taken + self.step.mul_f64(chance());
        Some(next)
    }
}

/// Longest useful spread for a shard with this number of clients in a node with this number of shards.
pub(crate) fn longest_spread(clients: usize, shards: usize) -> Duration {
    CLOSE_INTERVAL.saturating_mul(u32::try_from(clients.saturating_mul(shards)).unwrap_or(u32::MAX))
}

/// Random number from 0 to 1.
pub(crate) fn chance() -> f64 {
    f64::from(u32::from_ne_bytes(random_bytes())) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(10);

    fn all(schedule: &mut DrainSchedule<u32>, chance: &mut impl FnMut() -> f64) -> Vec<(Duration, u32)> {
        let mut all = Vec::new();
        while let Some(now) = schedule.next_at() {
            if let Some(before) = now.checked_sub(Duration::from_nanos(1)) {
                assert_eq!(schedule.next(before, &mut *chance), None);
            }
            all.push((now, schedule.next(now, &mut *chance).unwrap()));
        }
        all
    }

    #[test]
    fn one_client_closes_at_a_random_moment_of_each_step() {
        let numbers = [0.0, 0.999, 0.5, 0.25, 0.75];
        let mut index = 0;
        let mut chance = || {
            index += 1;
            numbers[index % numbers.len()]
        };
        let mut schedule = DrainSchedule::new((0..100).collect(), SPREAD, &mut chance);
        let step = SPREAD / 100;
        for ((at, who), number) in all(&mut schedule, &mut chance).into_iter().zip(0..) {
            assert_eq!(who, number);
            assert!(at >= step * number && at < step * (number + 1), "{who} at {at:?}");
        }
        assert_eq!(schedule.next(SPREAD * 9, &mut chance), None);
    }

    #[test]
    fn a_late_look_returns_all_that_were_due() {
        let mut schedule = DrainSchedule::new((0..10).collect(), SPREAD, || 0.5);
        let due = std::iter::from_fn(|| schedule.next(SPREAD / 2, || 0.5)).count();
        assert_eq!(due, 5);
    }

    #[test]
    fn without_a_spread_all_close_immediately_and_without_clients_the_schedule_is_done() {
        let mut schedule = DrainSchedule::new(vec![1, 2], Duration::ZERO, || 0.9);
        assert_eq!(all(&mut schedule, &mut || 0.9), [(Duration::ZERO, 1), (Duration::ZERO, 2)]);
        assert_eq!(DrainSchedule::<u32>::new(Vec::new(), SPREAD, || 0.1).next_at(), None);
    }

    #[test]
    fn a_few_clients_shorten_the_drain() {
        assert_eq!(longest_spread(5, 2), Duration::from_secs(1));
        assert_eq!(longest_spread(0, 2), Duration::ZERO);
    }
}
