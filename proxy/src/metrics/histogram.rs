//! How large or how long something was, in buckets; for what is rare, such as handshakes, and what is told once per send.

use std::marker::PhantomData;
use std::time::Duration;

use super::Counter;

/// The buckets of a histogram, and the unit of its numbers.
pub(crate) trait Scale {
    /// The upper bound of each bucket but the last, which has none; in whole steps.
    const BOUNDS: &'static [u64];
    /// What one step is in the unit that is shown.
    const STEP: f64;
}

/// Durations of exchanges: 100 µs to 30 s.
#[derive(Debug)]
pub(crate) struct Exchange;

impl Scale for Exchange {
    const BOUNDS: &'static [u64] = &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000, 10_000_000, 30_000_000,
    ];
    const STEP: f64 = 1e-6;
}

/// Lifetimes of connections: a second to a day.
#[derive(Debug)]
pub(crate) struct Lifetime;

impl Scale for Lifetime {
    const BOUNDS: &'static [u64] = &[1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000, 86_400_000];
    const STEP: f64 = 1e-3;
}

/// Receivers of a send.
#[derive(Debug)]
pub(crate) struct FanOut;

impl Scale for FanOut {
    const BOUNDS: &'static [u64] =
        &[0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000];
    const STEP: f64 = 1.0;
}

/// How often each size came.
#[derive(Debug)]
pub(crate) struct Histogram<S> {
    buckets: Vec<Counter>,
    sum: Counter,
    scale: PhantomData<fn() -> S>,
}

/// What histograms of several shards come to together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distribution {
    /// The upper bound of each bucket but the last, and how many were at most so large.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: f64,
}

impl<S: Scale> Default for Histogram<S> {
    fn default() -> Self {
        let buckets = (0..=S::BOUNDS.len()).map(|_| Counter::default()).collect();
        Self { buckets, sum: Counter::default(), scale: PhantomData }
    }
}

impl<S: Scale> Histogram<S> {
    /// Takes note of one.
    pub(crate) fn record(&self, steps: u64) {
        let place = S::BOUNDS.partition_point(|bound| *bound < steps);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.increment();
            self.sum.add(steps);
        }
    }

    /// Sums up what several have taken note of.
    pub(crate) fn sum_up<'a>(all: impl Iterator<Item = &'a Self>) -> Distribution
    where
        S: 'a,
    {
        let mut counts = vec![0; S::BOUNDS.len() + 1];
        let mut sum = 0;
        for histogram in all {
            counts.iter_mut().zip(&histogram.buckets).for_each(|(count, bucket)| *count += bucket.get());
            sum += histogram.sum.get();
        }
        let mut count = 0;
        let mut upper = S::BOUNDS.iter().map(|bound| *bound as f64 * S::STEP);
        let mut buckets = Vec::new();
        for in_bucket in counts {
            count += in_bucket;
            buckets.extend(upper.next().map(|bound| (bound, count)));
        }
        Distribution { buckets, count, sum: sum as f64 * S::STEP }
    }
}

impl Histogram<Exchange> {
    /// Takes note of one that lasted so long.
    pub(crate) fn lasted(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Histogram<Lifetime> {
    /// Takes note of one that lived so long.
    pub(crate) fn lived(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_larger_than_all_counts_too() {
        let (one, other) = (Histogram::<FanOut>::default(), Histogram::<FanOut>::default());
        [0, 1, 10, 11].iter().for_each(|&size| one.record(size));
        other.record(1_000_000);
        let all = Histogram::sum_up([&one, &other].into_iter());
        assert_eq!((all.count, all.sum), (5, 1_000_022.0));
        let up_to = |bound: f64| all.buckets.iter().find(|(upper, _)| *upper == bound).map(|(_, count)| *count);
        assert_eq!((up_to(0.0), up_to(1.0), up_to(5.0), up_to(10.0)), (Some(1), Some(2), Some(2), Some(3)));
        assert_eq!((up_to(25.0), up_to(50_000.0)), (Some(4), Some(4)));
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let histogram = Histogram::<Exchange>::default();
        histogram.lasted(Duration::from_millis(250));
        let all = Histogram::sum_up(std::iter::once(&histogram));
        assert_eq!(all.sum, 0.25);
        assert_eq!(all.buckets.iter().find(|(_, count)| *count == 1), Some(&(0.25, 1)));
    }
}
