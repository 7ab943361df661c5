//! Metric families as Prometheus' messages, for `/metrics` and the export.

use prometheus::proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType};

use super::Distribution;
use super::metric_family::{Families, Family, LabelPairs, Sample};

impl Families {
    pub(crate) fn into_proto(self) -> Vec<MetricFamily> {
        self.0.into_iter().map(|(name, family)| family.into_proto(name)).collect()
    }
}

impl Family {
    fn into_proto(self, name: &str) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(self.help.into());
        family.set_field_type(match self.samples.values().next() {
            Some(Sample::Gauge(_)) => MetricType::GAUGE,
            Some(Sample::Histogram(_)) => MetricType::HISTOGRAM,
            Some(Sample::Counter(_)) | None => MetricType::COUNTER,
        });
        family.set_metric(self.samples.into_iter().map(|(labels, sample)| sample.into_proto(labels)).collect());
        family
    }
}

impl Sample {
    fn into_proto(self, labels: LabelPairs) -> Metric {
        let pair = |(name, value): (&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.into());
            pair.set_value(value);
            pair
        };
        let mut metric = Metric::from_label(labels.into_iter().map(pair).collect());
        match self {
            Self::Counter(number) => {
                let mut counter = proto::Counter::default();
                counter.set_value(number as f64);
                metric.set_counter(counter);
            }
            Self::Gauge(number) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(number as f64);
                metric.set_gauge(gauge);
            }
            Self::Histogram(distribution) => metric.set_histogram(histogram(&distribution)),
        }
        metric
    }
}

fn histogram(distribution: &Distribution) -> proto::Histogram {
    let buckets = distribution.buckets.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count);
    histogram.set_sample_sum(distribution.sum);
    histogram
}
