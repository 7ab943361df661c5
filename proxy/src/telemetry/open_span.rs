//! Span that has begun and not ended.

use std::borrow::Cow;
use std::sync::Arc;

use trunkline_protocol::trace_context::TraceContext;

use super::span_queue::SpanQueue;
use super::span_record::SpanRecord;
use crate::clock::unix_ns;

/// Span that has begun. It ends when it is dropped, whatever the reason, so none is forgotten.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    /// `None` once it has ended.
    span: Option<Box<SpanRecord>>,
    queue: Arc<SpanQueue>,
}

impl OpenSpan {
    pub(super) fn new(span: SpanRecord, queue: Arc<SpanQueue>) -> Self {
        Self { span: Some(Box::new(span)), queue }
    }

    /// Its place in its trace, for its children.
    #[must_use]
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.span.as_ref().map(|span| span.context)
    }

    /// Adds an attribute, cut if it is long.
    pub(crate) fn set(&mut self, name: &'static str, text: &str) {
        if let Some(span) = &mut self.span {
            span.set(name, text);
        }
    }

    /// Takes back that it has failed.
    pub(crate) fn succeed(&mut self) {
        if let Some(span) = &mut self.span {
            span.error = None;
        }
    }

    /// Marks it as failed, with a text for people.
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
