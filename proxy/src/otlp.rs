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

mod attribute;
mod collector;
mod exporter;
mod metric_request;
mod span_request;

pub(crate) use collector::check;
pub(crate) use exporter::{Exporter, MetricSource};
