//! Presence for back ends: the subjects of this node's webhook hubs, and the table of all nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::subject::Subject;
use super::subject_log::SubjectLog;
use super::subject_table::{BatchAnswer, MissingBatch, SubjectBatch, SubjectTable};

#[derive(Debug)]
pub(crate) struct WebhookPresence<S> {
    pub(crate) log: Arc<SubjectLog<S>>,
    table: Mutex<SubjectTable<S>>,
    changed: Notify,
    /// Position in the log up to which other nodes have reported the subjects of this node as gone.
    reported: watch::Sender<u64>,
}

impl<S: Subject> WebhookPresence<S> {
    pub(super) fn new(boot: &str, grace: Duration) -> Self {
        let table = Mutex::new(SubjectTable::new(boot.into(), grace));
        Self { log: Arc::default(), table, changed: Notify::new(), reported: watch::Sender::default() }
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, SubjectTable<S>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a batch of another node. Fails if the node has to start again with all its subjects.
    pub(crate) fn take_batch(&self, batch: SubjectBatch<S>) -> Result<BatchAnswer, MissingBatch> {
        let answer = self.table().apply(batch, Instant::now())?;
        self.changed.notify_one();
        Ok(answer)
    }

    /// Notes that other nodes have reported the subjects up to this position as gone. Returns `false` if it was noted.
    pub(crate) fn note_reported(&self, until: u64) -> bool {
        self.reported.send_if_modified(|noted| {
            let is_later = until > *noted;
            *noted = until.max(*noted);
            is_later
        })
    }

    pub(super) fn reported(&self) -> watch::Receiver<u64> {
        self.reported.subscribe()
    }

    /// Whether the back ends have received all events about this node's subjects.
    pub(crate) fn is_done(&self) -> bool {
        let version = self.log.version();
        self.table().is_done(version)
    }

    /// Waits for a change at this node, or a batch of another one.
    pub(crate) async fn has_changed(&self) {
        tokio::select! {
            () = self.log.has_changed() => {}
            () = self.changed.notified() => {}
        }
    }
}
