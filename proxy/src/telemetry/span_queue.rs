//! Bounded queue of ended spans, from all shards to the exporter.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::export_counters::ExportCounters;
use super::span_record::SpanRecord;

/// Maximum number of ended spans that wait for the exporter; about 2 MiB. With a collector that is gone they are
/// dropped.
pub(crate) const SPAN_QUEUE_MAX: usize = 4096;

/// Queue of ended spans. Whoever ends one never waits.
#[derive(Debug)]
pub(crate) struct SpanQueue {
    sender: Sender<Box<SpanRecord>>,
    /// Until the exporter has taken it.
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
    /// Puts an ended span in; drops it if there is no room.
    pub(crate) fn put(&self, span: Box<SpanRecord>) {
        if self.sender.try_send(span).is_err() {
            self.counters.queue_full.increment();
        }
    }

    /// Takes the other end, once.
    pub(crate) fn take_receiver(&self) -> Option<Receiver<Box<SpanRecord>>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
