//! Histograms of sizes and durations, for rare events such as handshakes, and for one value per send.

use std::marker::PhantomData;
use std::time::Duration;

use super::Counter;

/// Buckets of a histogram, and the unit of its values.
pub(crate) trait Buckets {
    /// Upper bounds of all buckets except the last, which is unbounded; in steps.
    const BOUNDS: &'static [u64];
    /// Steps in the displayed unit.
    const UNIT: f64;
}

/// Buckets of durations: 100 µs to 30 s, in microseconds.
#[derive(Debug)]
pub(crate) struct DurationBuckets;

impl Buckets for DurationBuckets {
    const BOUNDS: &'static [u64] = &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000, 10_000_000, 30_000_000,
    ];
    const UNIT: f64 = 1e6;
}

/// Buckets of connection lifetimes: 1 s to 1 day, in milliseconds.
#[derive(Debug)]
pub(crate) struct LifetimeBuckets;

impl Buckets for LifetimeBuckets {
    const BOUNDS: &'static [u64] = &[1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000, 86_400_000];
    const UNIT: f64 = 1e3;
}

#[derive(Debug)]
pub(crate) struct FanOutBuckets;

impl Buckets for FanOutBuckets {
    const BOUNDS: &'static [u64] =
        &[0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000];
    const UNIT: f64 = 1.0;
}

/// Histogram written by one shard.
#[derive(Debug)]
pub(crate) struct Histogram<B> {
    counts: Vec<Counter>,
    sum: Counter,
    buckets: PhantomData<fn() -> B>,
}

/// Sum of the histograms of several shards.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distribution {
    /// Upper bound of each bucket except the last, and the cumulative count.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

impl<B: Buckets> Default for Histogram<B> {
    fn default() -> Self {
        let counts = (0..=B::BOUNDS.len()).map(|_| Counter::default()).collect();
        Self { counts, sum: Counter::default(), buckets: PhantomData }
    }
}

impl<B: Buckets> Histogram<B> {
    /// Counts one value, in steps.
    pub(crate) fn observe(&self, steps: u64) {
        let bucket = B::BOUNDS.partition_point(|bound| *bound < steps);
        if let Some(count) = self.counts.get(bucket) {
            count.increment();
            self.sum.add(steps);
        }
    }

    pub(crate) fn sum_up<'a>(all: impl Iterator<Item = &'a Self>) -> Distribution
    where
        B: 'a,
    {
        let mut counts = vec![0; B::BOUNDS.len() + 1];
        let mut sum = 0;
        for histogram in all {
            counts.iter_mut().zip(&histogram.counts).for_each(|(sum, count)| *sum += count.get());
            sum += histogram.sum.get();
        }
        let mut count = 0;
        let mut upper = B::BOUNDS.iter().map(|bound| *bound as f64 / B::UNIT);
        let mut buckets = Vec::new();
        for in_bucket in counts {
            count += in_bucket;
            buckets.extend(upper.next().map(|bound| (bound, count)));
        }
        Distribution { buckets, count, sum: sum as f64 / B::UNIT }
    }
}

impl Histogram<DurationBuckets> {
    /// Counts one duration, in microseconds.
    pub(crate) fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Histogram<LifetimeBuckets> {
    /// Counts one lifetime, in milliseconds.
    pub(crate) fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_larger_values_count_too() {
        let (one, other) = (Histogram::<FanOutBuckets>::default(), Histogram::<FanOutBuckets>::default());
        [0, 1, 10, 11].iter().for_each(|&size| one.observe(size));
        other.observe(1_000_000);
        let all = Histogram::sum_up([&one, &other].into_iter());
        assert_eq!((all.count, all.sum), (5, 1_000_022.0));
        let up_to = |bound: f64| all.buckets.iter().find(|(upper, _)| *upper == bound).map(|(_, count)| *count);
        assert_eq!((up_to(0.0), up_to(1.0), up_to(5.0), up_to(10.0)), (Some(1), Some(2), Some(2), Some(3)));
        assert_eq!((up_to(25.0), up_to(50_000.0)), (Some(4), Some(4)));
    }

    #[test]
    fn bounds_are_short_numbers() {
        let bounds = Histogram::sum_up([&Histogram::<DurationBuckets>::default()].into_iter()).buckets;
        let shown: Vec<_> = bounds.iter().take(8).map(|(bound, _)| bound.to_string()).collect();
        assert_eq!(shown, ["0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025"]);
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let histogram = Histogram::<DurationBuckets>::default();
        histogram.observe_duration(Duration::from_millis(250));
        let all = Histogram::sum_up(std::iter::once(&histogram));
        assert_eq!(all.sum, 0.25);
        assert_eq!(all.buckets.iter().find(|(_, count)| *count == 1), Some(&(0.25, 1)));
    }
}
