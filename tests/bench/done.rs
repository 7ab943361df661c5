//! What clients have done in a window, and how long each unit of it took.

use std::collections::BTreeMap;
use std::time::Duration;

/// What was done in a window.
#[derive(Debug, Default)]
pub struct Done {
    /// How many units.
    pub units: u64,
    /// How many units were done how many µs after they were asked for.
    latencies: BTreeMap<u64, u64>,
}

impl Done {
    /// So many units were done so long after they were asked for.
    pub fn note(&mut self, units: u64, after: Duration) {
        if units > 0 {
            self.units += units;
            *self.latencies.entry(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)).or_default() += units;
        }
    }

    /// The latency in µs that so many of 100 don't exceed.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let mut seen = 0;
        let found = self.latencies.iter().find(|(_, count)| {
            seen += **count;
            seen * 100 >= self.units * percent
        });
        found.map_or(0, |(latency, _)| *latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_so_many_do_not_exceed() {
        let mut done = Done::default();
        for (micros, units) in [(10, 98), (20, 1), (30, 1), (40, 0)] {
            done.note(units, Duration::from_micros(micros));
        }
        assert_eq!([50, 98, 99, 100].map(|percent| done.percentile(percent)), [10, 10, 20, 30]);
    }
}
