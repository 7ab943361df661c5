//! Presence for back ends: the subjects of this node's webhook hubs, and the table of all nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::subject::Subject;
use super::subject_log::SubjectLog;
use super::subject_table::{MissingBatch, SubjectBatch, SubjectTable};

#[derive(Debug)]
pub(crate) struct WebhookPresence<S> {
    log: Arc<SubjectLog<S>>,
    table: Mutex<SubjectTable<S>>,
    changed: Notify,
}

impl<S: Subject> WebhookPresence<S> {
    #[must_use]
    pub(super) fn new(boot: &str, grace: Duration) -> Self {
        let table = Mutex::new(SubjectTable::new(boot.into(), grace));
        Self { log: Arc::default(), table, changed: Notify::new() }
    }

    #[must_use]
    pub(crate) fn log(&self) -> &Arc<SubjectLog<S>> {
        &self.log
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, SubjectTable<S>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a batch of another node. Fails if the node has to start again with all its subjects.
    pub(crate) fn take(&self, batch: SubjectBatch<S>) -> Result<(), MissingBatch> {
        self.table().apply(batch, Instant::now())?;
        self.changed.notify_one();
        Ok(())
    }

    /// Whether the back ends have received all events about this node's subjects.
    #[must_use]
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
