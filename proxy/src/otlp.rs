//! Export of spans and metrics to an OpenTelemetry collector: OTLP over HTTP, as protobuf, from the main thread.
//!
//! ```text
//!  shards ─► SpanQueue ─► batches ─► span_request ──┐
//!                                                   ├─► Collector: POST, deadline, few retries ─► counted
//!  exposition, every interval ─► metric_request ────┘
//! ```
//!
//! The messages are those of the crate `opentelemetry-proto`. Sending them is ours, because one sender serves both
//! signals by the node's own HTTP client: the SDK's exporter takes no metrics but its own, and does not tell what it
//! drops.

mod attribute;
mod collector;
mod exporter;
mod metric_request;
mod span_request;

pub(crate) use collector::check;
pub(crate) use exporter::{Exporter, MetricSource};
