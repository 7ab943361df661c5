//! Export of spans and metrics to an OpenTelemetry collector: OTLP over HTTP with protobuf, on the main thread.
//!
//! ```text
//!  shards ─► SpanQueue ─► batches ─► span_request ──┐
//!                                                   ├─► Collector: POST, deadline, few retries ─► counters
//!  exposition, periodically ─► metric_request ──────┘
//! ```
//!
//! Messages come from the crate `opentelemetry-proto`. The SDK's exporter accepts only its own metrics and does not
//! report drops, so one sender here handles both signals with the node's HTTP client.

mod collector;
mod export_request;
mod exporter;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

pub(crate) use collector::check;
pub(crate) use exporter::{Exporter, MetricSource};

/// Service name of exported data.
const SERVICE: &str = "trunkline";

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn resource(node: &str) -> Resource {
    let attributes = vec![
        text("service.name", SERVICE),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", node),
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("trunkline-proxy".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}
