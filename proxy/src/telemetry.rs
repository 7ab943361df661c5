//! Spans of this node: sampling of calls and connections, open spans, and the queue to the exporter.
//!
//! ```text
//!  request, call ─► SpanTracer: sampled? within the rate? ─► OpenSpan ─ ended ─► SpanQueue ─► exporter (`otlp`, main thread)
//!                      └─ no: nothing                                           └─ full: dropped, counted
//! ```
//!
//! Shards create spans without ever waiting. Without `--otlp` there is no tracer.

mod connection_trace;
mod export_counters;
mod open_span;
mod span_queue;
mod span_record;
mod span_tracer;

pub(crate) use connection_trace::ConnectionTrace;
pub(crate) use export_counters::ExportCounters;
#[cfg(feature = "otlp")]
pub(crate) use export_counters::ExportedSignal;
pub(crate) use open_span::OpenSpan;
#[cfg(feature = "otlp")]
pub(crate) use span_queue::SpanQueue;
pub(crate) use span_record::clipped;
#[cfg(any(feature = "otlp", test))]
pub(crate) use span_record::{SpanKind, SpanRecord};
pub use span_tracer::SamplingTerms;
pub(crate) use span_tracer::SpanTracer;
