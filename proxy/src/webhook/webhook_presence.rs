//! Presence for back ends: the users of this node's webhook hubs, and the table of all nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::user_log::UserLog;
use super::user_table::{MissingBatch, UserBatch, UserTable};

/// Path at which nodes receive the batches of other nodes.
pub(crate) const PRESENCE_PATH: &str = "/api/webhooks/presence";

#[derive(Debug)]
pub(crate) struct WebhookPresence {
    log: Arc<UserLog>,
    table: Mutex<UserTable>,
    changed: Notify,
}

impl WebhookPresence {
    #[must_use]
    pub(super) fn new(boot: &str, grace: Duration) -> Self {
        let table = Mutex::new(UserTable::new(boot.into(), grace));
        Self { log: Arc::default(), table, changed: Notify::new() }
    }

    #[must_use]
    pub(crate) fn log(&self) -> &Arc<UserLog> {
        &self.log
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, UserTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a batch of another node. Fails if the node has to start again with all users.
    pub(crate) fn take(&self, batch: UserBatch) -> Result<(), MissingBatch> {
        self.table().apply(batch, Instant::now())?;
        self.changed.notify_one();
        Ok(())
    }

    /// Whether the back ends have received all events about this node's users.
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
