//! Histogram of microseconds that can be merged and serialized to JSON, as value and count of each used bucket.

use std::time::Duration;

use hdrhistogram::Histogram as Hdr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum value: one hour. Longer times count as this.
const LONGEST_US: u64 = 3_600_000_000;
/// Three digits of precision: the error is below a thousandth.
const DIGITS: u8 = 3;

/// Histogram of times in microseconds.
#[derive(Debug, Clone)]
pub struct Histogram(Hdr<u64>);

impl Default for Histogram {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library takes, as each test shows")]
    fn default() -> Self {
        Self(Hdr::new_with_bounds(1, LONGEST_US, DIGITS).expect("constant bounds"))
    }
}

/// Quantiles for a table row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Number of recorded times.
    pub count: u64,
    /// Median of the times.
    pub p50_us: u64,
    /// 90th percentile of the times.
    pub p90_us: u64,
    /// 99th percentile of the times.
    pub p99_us: u64,
    /// 99.9th percentile of the times.
    pub p999_us: u64,
    /// The longest recorded time.
    pub max_us: u64,
}

impl Histogram {
    /// Records a time once.
    pub fn record(&mut self, time_us: u64) {
        self.record_many(time_us, 1);
    }

    /// Records a time repeatedly.
    pub fn record_many(&mut self, time_us: u64, count: u64) {
        self.0.saturating_record_n(time_us, count);
    }

    /// Merges another histogram into this.
    pub fn add(&mut self, other: &Self) {
        for (value, count) in other.buckets() {
            self.0.saturating_record_n(value, count);
        }
    }

    /// Number of recorded times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Quantile of this share (0 to 1).
    #[must_use]
    pub fn at(&self, share: f64) -> u64 {
        // The library returns the end of a bucket, which may exceed the maximum.
        self.0.value_at_quantile(share).min(self.0.max())
    }

    /// The longest recorded time.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// Quantiles for a table row.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.count(),
            p50_us: self.at(0.5),
            p90_us: self.at(0.9),
            p99_us: self.at(0.99),
            p999_us: self.at(0.999),
            max_us: self.max(),
        }
    }

    fn buckets(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.buckets().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            histogram.0.saturating_record_n(value, count);
        }
        Ok(histogram)
    }
}

/// Duration in whole microseconds.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        times.into_iter().for_each(|time| histogram.record(time));
        histogram
    }

    #[test]
    fn quantiles_are_those_of_the_recorded_times() {
        let quantiles = of(1..=1_000).quantiles();
        let expected = Quantiles { count: 1_000, p50_us: 500, p90_us: 900, p99_us: 990, p999_us: 999, max_us: 1_000 };
        assert_eq!(quantiles, expected);
    }

    #[test]
    fn a_longer_time_counts_as_the_longest() {
        assert_eq!(of([LONGEST_US * 9]).count(), 1);
    }

    #[test]
    fn two_halves_make_the_whole_and_writing_loses_nothing() {
        let whole = of((0..5_000).map(|number| number * 997));
        let mut sum = of((0..2_000).map(|number| number * 997));
        sum.add(&of((2_000..5_000).map(|number| number * 997)));
        assert_eq!(sum.quantiles(), whole.quantiles());
        let text = serde_json::to_string(&whole).unwrap();
        let back: Histogram = serde_json::from_str(&text).unwrap();
        assert_eq!(back.quantiles(), whole.quantiles());
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
