//! Histograms of microseconds that can be written to JSON and added up: value and count of each bucket in use.

use hdrhistogram::Histogram as Hdr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest time that is told apart: one hour. What is longer counts as this.
const LONGEST_US: u64 = 3_600_000_000;
/// Three digits: the error is below a thousandth.
const DIGITS: u8 = 3;

/// A histogram.
#[derive(Debug, Clone)]
pub(crate) struct Histogram(Hdr<u64>);

impl Default for Histogram {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library takes, as each test shows")]
    fn default() -> Self {
        Self(Hdr::new_with_bounds(1, LONGEST_US, DIGITS).expect("constant bounds"))
    }
}

/// The figures of a table's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl Histogram {
    /// Counts one time.
    pub(crate) fn record(&mut self, time_us: u64) {
        self.0.saturating_record(time_us);
    }

    /// Adds all that another one has.
    pub(crate) fn add(&mut self, other: &Self) {
        for (value, count) in other.buckets() {
            self.0.saturating_record_n(value, count);
        }
    }

    /// How many times were counted.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that so many (0 to 1) do not exceed.
    pub(crate) fn at(&self, share: f64) -> u64 {
        // The library answers with the end of a bucket, which may lie beyond the longest time that came.
        self.0.value_at_quantile(share).min(self.0.max())
    }

    /// The longest.
    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    /// The figures of a table.
    pub(crate) fn quantiles(&self) -> Quantiles {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        times.into_iter().for_each(|time| histogram.record(time));
        histogram
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let quantiles = of(1..=1_000).quantiles();
        let expected = Quantiles { count: 1_000, p50_us: 500, p90_us: 900, p99_us: 990, p999_us: 999, max_us: 1_000 };
        assert_eq!(quantiles, expected);
    }

    #[test]
    fn what_is_beyond_the_longest_counts_as_the_longest() {
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
