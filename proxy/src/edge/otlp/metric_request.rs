//! Converts metrics to an OTLP message: cumulative sums, gauges, and histograms with explicit bounds.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::{resource, scope, text};

/// Period covered by cumulative metrics, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetricPeriod {
    pub(super) begun_ns: u64,
    pub(super) now_ns: u64,
}

pub(super) fn metric_request(
    node: &str,
    period: MetricPeriod,
    families: &[MetricFamily],
) -> ExportMetricsServiceRequest {
    let metrics = families.iter().filter_map(|family| metric(period, family)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let of_node = ResourceMetrics { resource: Some(resource(node)), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_node] }
}

/// Metric of a family; `None` for unused kinds.
fn metric(period: MetricPeriod, family: &MetricFamily) -> Option<Metric> {
    let (all, cumulative) = (family.get_metric(), AggregationTemporality::Cumulative.into());
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: all.iter().map(|one| number(period, one, one.get_counter().get_value())).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => Data::Gauge(Gauge {
            data_points: all.iter().map(|one| number(period, one, one.get_gauge().get_value())).collect(),
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: all.iter().map(|one| distribution(period, one)).collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let (name, description) = (family.name().to_owned(), family.help().to_owned());
    Some(Metric { name, description, data: Some(data), ..Metric::default() })
}

fn number(period: MetricPeriod, metric: &proto::Metric, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: period.begun_ns,
        time_unix_nano: period.now_ns,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Data point of a histogram. Prometheus counts values up to each bound; OTLP counts between bounds, and above the
/// last.
fn distribution(period: MetricPeriod, metric: &proto::Metric) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let (mut explicit_bounds, mut bucket_counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in finite {
        explicit_bounds.push(bucket.upper_bound());
        bucket_counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    let count = histogram.get_sample_count();
    bucket_counts.push(count.saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: period.begun_ns,
        time_unix_nano: period.now_ns,
        count: bucket_counts.iter().sum(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts,
        explicit_bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(metric: &proto::Metric) -> Vec<KeyValue> {
    metric.get_label().iter().map(|label| text(label.name(), label.value())).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram as PrometheusHistogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    #[test]
    fn sums_gauges_and_histograms_say_the_same_as_before() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "All."), &["hub"]).unwrap();
        counter.with_label_values(&["chat"]).inc_by(7);
        let gauge = IntGauge::new("b", "Now.").unwrap();
        gauge.set(-3);
        let histogram =
            PrometheusHistogram::with_opts(HistogramOpts::new("c", "Spread.").buckets(vec![1.0, 2.0])).unwrap();
        [0.5, 0.6, 1.5, 9.0].into_iter().for_each(|value| histogram.observe(value));
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let period = MetricPeriod { begun_ns: 1, now_ns: 2 };
        let request = metric_request("node-1", period, &registry.gather());
        let [a, b, c] = &request.resource_metrics[0].scope_metrics[0].metrics[..] else { panic!("{request:?}") };
        let Some(Data::Sum(sum)) = &a.data else { panic!("{a:?}") };
        assert_eq!((&*a.name, &*a.description, sum.is_monotonic), ("a_total", "All.", true));
        assert_eq!(sum.data_points[0].attributes, [text("hub", "chat")]);
        assert_eq!(sum.data_points[0].value, Some(Value::AsDouble(7.0)));
        assert_eq!((sum.data_points[0].start_time_unix_nano, sum.data_points[0].time_unix_nano), (1, 2));
        let Some(Data::Gauge(gauge)) = &b.data else { panic!("{b:?}") };
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(-3.0)));
        let Some(Data::Histogram(histogram)) = &c.data else { panic!("{c:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((&point.explicit_bounds[..], &point.bucket_counts[..]), (&[1.0, 2.0][..], &[2, 1, 1][..]));
        assert_eq!((point.count, point.sum), (4, Some(11.6)));
    }
}
