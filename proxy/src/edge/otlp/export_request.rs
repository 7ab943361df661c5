//! Converts spans and metrics to OTLP messages; metrics to cumulative sums, gauges, and histograms with explicit
//! bounds.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind as OtlpSpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prometheus::proto::{self, MetricFamily, MetricType};
use trunkline_protocol::trace_context::TraceContext;

use super::{resource, scope, text};
use crate::ground::telemetry::{SpanKind, SpanRecord};

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

pub(super) fn span_request(node: &str, spans: impl IntoIterator<Item = Box<SpanRecord>>) -> ExportTraceServiceRequest {
    let spans = spans.into_iter().map(|span| span_of(*span)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource(node)), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn span_of(span: SpanRecord) -> Span {
    let kind = match span.kind {
        SpanKind::Server => OtlpSpanKind::Server,
        SpanKind::Client => OtlpSpanKind::Client,
    };
    let status = span.error.map(|message| Status { code: StatusCode::Error.into(), message: message.into_owned() });
    Span {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        flags: flags(&span.context),
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: span.begun_ns,
        end_time_unix_nano: span.ended_ns,
        attributes: span.attributes.iter().map(|(key, value)| text(key, value)).collect(),
        links: span.link.iter().map(link_of).collect(),
        status,
        ..Span::default()
    }
}

fn link_of(context: &TraceContext) -> Link {
    let (trace_id, span_id) = (context.trace_id.to_vec(), context.span_id.to_vec());
    Link { trace_id, span_id, flags: flags(context), ..Link::default() }
}

fn flags(context: &TraceContext) -> u32 {
    u32::from(context.is_sampled)
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

    #[test]
    fn a_span_keeps_its_place_its_times_and_its_error() {
        let (context, link) = (TraceContext::root(), TraceContext::root());
        let mut record = SpanRecord {
            context,
            parent: Some([7; 8]),
            link: Some(link),
            name: "/chat/Echo".into(),
            kind: SpanKind::Client,
            begun_ns: 5,
            ended_ns: 9,
            attributes: Vec::new(),
            error: Some("gone".into()),
        };
        record.set("rpc.method", "Echo");
        let request = span_request("node-1", [Box::new(record)]);
        let of_node = &request.resource_spans[0];
        assert!(of_node.resource.as_ref().unwrap().attributes.contains(&text("service.instance.id", "node-1")));
        let span = &of_node.scope_spans[0].spans[0];
        assert_eq!((&*span.trace_id, &*span.parent_span_id), (&context.trace_id[..], &[7; 8][..]));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano, span.flags), (5, 9, 1));
        assert_eq!(span.attributes, [text("rpc.method", "Echo")]);
        assert_eq!(span.links[0].span_id, link.span_id);
        assert_eq!(span.status.as_ref().unwrap().message, "gone");
        assert_eq!(span.kind(), OtlpSpanKind::Client);
    }
}
