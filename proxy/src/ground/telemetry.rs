//! Spans of this node: sampling of calls and connections, open spans, and the queue to the exporter.
//!
//! ```text
//!  request, call ─► SpanTracer: sampled? within the rate? ─► OpenSpan ─ ended ─► SpanQueue ─► exporter (`otlp`, main thread)
//!                      └─ no: nothing                                           └─ full: dropped, counted
//! ```
//!
//! Shards create spans without ever waiting. Without `--otlp` there is no tracer.

mod span_queue;
mod span_tracer;

use std::borrow::Cow;
use std::sync::Arc;

use trunkline_protocol::trace_context::TraceContext;

use crate::ground::clock::unix_ns;

#[cfg(feature = "otlp")]
pub(crate) use span_queue::ExportedSignal;
#[cfg(any(feature = "otlp", test))]
pub(crate) use span_queue::SpanKind;
pub(crate) use span_queue::{ExportCounters, SpanQueue, SpanRecord, clipped};
pub use span_tracer::SamplingTerms;
pub(crate) use span_tracer::SpanTracer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionTrace {
    /// Span of the negotiation or of the connect request.
    pub context: TraceContext,
    /// Set if the client began the trace, which then includes its calls. In a trace of this node they would never end,
    /// so each call gets its own linked trace.
    pub is_of_client: bool,
}

/// Open span. It ends on drop, so every span ends.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    /// `None` after the end.
    span: Option<Box<SpanRecord>>,
    queue: Arc<SpanQueue>,
}

impl OpenSpan {
    fn new(span: SpanRecord, queue: Arc<SpanQueue>) -> Self {
        Self { span: Some(Box::new(span)), queue }
    }

    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.span.as_ref().map(|span| span.context)
    }

    pub(crate) fn set(&mut self, name: &'static str, text: &str) {
        if let Some(span) = &mut self.span {
            span.set(name, text);
        }
    }

    /// Clears the error status.
    pub(crate) fn succeed(&mut self) {
        if let Some(span) = &mut self.span {
            span.error = None;
        }
    }

    /// Marks the span as failed, with a text for people.
    pub(crate) fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.span {
            span.error = Some(error.into());
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.ended_ns = unix_ns().max(span.begun_ns);
            self.queue.put(span);
        }
    }
}
