//! Units of work done in a window, with their latencies.

use std::time::Duration;

use crate::histogram::{Histogram, micros};

/// Work done in a window.
#[derive(Debug, Default)]
pub struct Done {
    /// Number of units done.
    pub units: u64,
    latencies: Histogram,
}

impl Done {
    /// Counts units that were done this long after they were asked for.
    pub fn note(&mut self, units: u64, after: Duration) {
        if units > 0 {
            self.units += units;
            self.latencies.record_many(micros(after), units);
        }
    }

    /// The latency in µs that this many of 100 units do not exceed.
    #[must_use]
    pub fn percentile(&self, percent: u32) -> u64 {
        self.latencies.at(f64::from(percent) / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_this_many_do_not_exceed() {
        let mut done = Done::default();
        for (micros, units) in [(10, 98), (20, 1), (30, 1), (40, 0)] {
            done.note(units, Duration::from_micros(micros));
        }
        assert_eq!([50, 98, 99, 100].map(|percent| done.percentile(percent)), [10, 10, 20, 30]);
        assert_eq!(Done::default().percentile(99), 0);
    }
}
