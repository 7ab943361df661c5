//! Span that has begun and not ended.

use std::borrow::Cow;
use std::sync::Arc;

use trunkline_protocol::trace_context::TraceContext;

use super::span_queue::SpanQueue;
use super::span_record::SpanRecord;
use crate::clock::unix_ns;

/// Open span. It ends on drop, so every span ends.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    /// `None` after the end.
    span: Option<Box<SpanRecord>>,
    queue: Arc<SpanQueue>,
}

impl OpenSpan {
    pub(super) fn new(span: SpanRecord, queue: Arc<SpanQueue>) -> Self {
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
