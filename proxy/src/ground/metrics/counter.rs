//! Counters and gauges, implemented as relaxed atomics.
//!
//! With a single writing thread they cost about as much as plain numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number that never decreases.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds `amount`, as cheaply as a plain addition, for per-message counts. Only for the single thread that writes
    /// this counter; [`add`](Self::add) is a locked instruction.
    pub(crate) fn add_alone(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Number that can go up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces one addend of the sum.
    pub(crate) fn follow(&self, before: usize, after: usize) {
        // Adding the wrapped difference subtracts, in two's complement.
        self.0.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, now: usize) {
        self.0.store(now as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_the_sum_of_parts_that_change() {
        let gauge = Gauge::default();
        gauge.follow(0, 5);
        gauge.follow(0, 7);
        gauge.follow(5, 2);
        assert_eq!(gauge.get(), 9);
        gauge.set(1);
        assert_eq!(gauge.get(), 1);
    }

    #[test]
    fn a_counter_adds_up_however_it_is_added_to() {
        let counter = Counter::default();
        counter.increment();
        counter.add(2);
        counter.add_alone(3);
        assert_eq!(counter.get(), 6);
    }
}
