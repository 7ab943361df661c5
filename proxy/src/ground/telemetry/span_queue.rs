//! Bounded queue of ended spans, from all shards to the exporter.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::export_counters::ExportCounters;
use super::span_record::SpanRecord;

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
