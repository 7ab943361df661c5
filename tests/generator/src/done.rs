//! Completed units of work in a time window, with latencies.

use std::time::Duration;

use crate::histogram::{Histogram, micros};

/// Completed work in a time window.
#[derive(Debug, Default)]
pub struct Done {
    /// Number of completed units.
    pub units: u64,
    latencies: Histogram,
}

impl Done {
    /// Counts units completed with this latency.
    pub fn note(&mut self, units: u64, after: Duration) {
        if units > 0 {
            self.units += units;
            self.latencies.record_many(micros(after), units);
        }
    }

    /// Latency in µs at this percentile.
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
