//! Ended spans as plain values, and their bounded queue from all shards to the exporter; counters of exported
//! and dropped data.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use trunkline_protocol::trace_context::TraceContext;

use crate::ground::metrics::{Counter, label, metered};

/// Maximum length of a text from a client, such as a method name.
const TEXT_MAX_BYTES: usize = 128;

/// Role of this node in the traced exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// This node handles a client's request.
    Server,
    /// This node forwards a call to an app server.
    Client,
}

/// Span, with times in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpanRecord {
    pub context: TraceContext,
    pub parent: Option<[u8; 8]>,
    /// Related span of another trace.
    pub link: Option<TraceContext>,
    pub name: String,
    pub kind: SpanKind,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: Vec<(&'static str, String)>,
    /// Error text, if the span failed.
    pub error: Option<Cow<'static, str>>,
}

impl SpanRecord {
    /// Adds an attribute. Long texts, mostly from clients, are truncated.
    pub(crate) fn set(&mut self, name: &'static str, text: &str) {
        self.attributes.push((name, clipped(text).to_owned()));
    }
}

pub(crate) fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX_BYTES)).unwrap_or_default()
}

/// Maximum number of ended spans waiting for the exporter, about 2 MiB. Further spans are dropped while the collector
/// is unreachable.
pub(crate) const SPAN_QUEUE_MAX: usize = 4096;

/// Queue of ended spans. Adding never waits.
#[derive(Debug)]
pub(crate) struct SpanQueue {
    sender: Sender<Box<SpanRecord>>,
    /// `None` once the exporter has taken it.
    receiver: Mutex<Option<Receiver<Box<SpanRecord>>>>,
    pub(crate) counters: ExportCounters,
}

impl Default for SpanQueue {
    fn default() -> Self {
        let (sender, receiver) = channel(SPAN_QUEUE_MAX);
        Self { sender, receiver: Mutex::new(Some(receiver)), counters: ExportCounters::default() }
    }
}

impl SpanQueue {
    /// Queues an ended span, or drops it if the queue is full.
    pub(crate) fn put(&self, span: Box<SpanRecord>) {
        if self.sender.try_send(span).is_err() {
            self.counters.queue_full.increment();
        }
    }

    pub(crate) fn take_receiver(&self) -> Option<Receiver<Box<SpanRecord>>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

label! {
    /// Signal exported to the collector.
    pub(crate) enum ExportedSignal as "signal", in SignalCounters {
        Traces = "traces",
        Metrics = "metrics",
    }
}

metered! {
    /// Export counters of one node.
    pub(crate) struct ExportCounters {
        /// Spans accepted by the collector.
        #[metric(
            "trunkline_otlp_spans_total",
            "Spans of sampled calls and connections, by outcome.",
            outcome = "exported"
        )]
        pub exported: Counter,
        /// Spans not begun because of the rate limit.
        #[metric("trunkline_otlp_spans_total", outcome = "over_rate")]
        pub over_rate: Counter,
        /// Spans dropped because the export queue was full.
        #[metric("trunkline_otlp_spans_total", outcome = "queue_full")]
        pub queue_full: Counter,
        /// Spans that the collector rejected or did not accept in time.
        #[metric("trunkline_otlp_spans_total", outcome = "undelivered")]
        pub undelivered: Counter,
        /// Requests accepted by the collector.
        #[metric(
            "trunkline_otlp_requests_total",
            "Requests to the OpenTelemetry collector, by signal and outcome.",
            outcome = "ok"
        )]
        pub taken: SignalCounters,
        /// Failed requests, including retries.
        #[metric("trunkline_otlp_requests_total", outcome = "failed")]
        pub failed: SignalCounters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clipped("Echo"), "Echo");
        assert_eq!(clipped(&"é".repeat(1000)).len(), TEXT_MAX_BYTES);
        assert_eq!(clipped(&format!("x{}", "é".repeat(1000))).len(), TEXT_MAX_BYTES - 1);
    }
}
