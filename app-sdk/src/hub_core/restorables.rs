//! Lost clients with groups and items that are kept until they reconnect.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;

use super::lost_clients::{FoundLost, LostClient, LostClients, is_loss};
use crate::connection::{Connection, Limits, RestoredFrom};
use crate::metrics::HubMetrics;
use crate::sync::lock;

/// Default time for which proxies keep a client without a socket or a request.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S);

#[derive(Debug)]
pub(crate) struct Restorables {
    /// `None` if the hub does not restore clients.
    clients: Option<Mutex<LostClients>>,
    client_timeout: Duration,
}

impl Restorables {
    pub(super) fn new(limits: &Limits) -> Self {
        let clients = limits.restored_within.map(|within| Mutex::new(LostClients::new(within)));
        Self { clients, client_timeout: limits.client_timeout }
    }

    pub(crate) fn are_kept(&self) -> bool {
        self.clients.is_some()
    }

    /// Records the end of a connection if it counts as lost. Must be called before its worker can see the end.
    pub(super) fn begin(&self, connection: &Connection, cause: Cause) {
        if let Some(lost) = self.clients.as_ref().filter(|_| is_loss(cause)) {
            let user_id = connection.request().user_id();
            lock(lost).begin(connection.shared_id(), LostClient::new(cause, self.lost_at(connection, cause), user_id));
        }
    }

    /// Earliest time at which a connection that ends now may have been lost, considering how long detection takes.
    fn lost_at(&self, connection: &Connection, cause: Cause) -> Instant {
        let (now, client_timeout) = (Instant::now(), self.client_timeout);
        let (received_at, may_return) = (connection.node().received_at(), connection.home().moves_between_nodes());
        let unnoticed_for = match cause {
            Cause::LinkLost => now - received_at,
            // Its node is silent, so the node was lost.
            Cause::Restored if !connection.node().is_linked() => now - received_at,
            Cause::Restored => (now - received_at).max(client_timeout),
            Cause::KeepAliveTimeout => client_timeout,
            Cause::PollsStopped => RECONNECT_TIMEOUT,
            Cause::Drained | Cause::Rebalanced => Duration::ZERO,
            _ if may_return => RECONNECT_TIMEOUT,
            _ => Duration::ZERO,
        };
        now.checked_sub(unnoticed_for).unwrap_or(now)
    }

    /// Stores the state of a lost connection. Returns whether the caller must start [dropping](Self::drop_old).
    pub(crate) fn end(&self, connection: &Connection, was_connected: bool, metrics: &HubMetrics) -> bool {
        let Some(lost) = &self.clients else { return false };
        if !lock(lost).is_ending(connection.id()) {
            return false;
        }
        // Restored state survives even if the new connection is lost before its hook has run.
        let has_any = was_connected || connection.items().get::<RestoredFrom>().is_some();
        let had = has_any.then(|| connection.take_belongings());
        let mut lost = lock(lost);
        let waited = lost.waiting();
        let dropped = lost.end(connection.id(), had, Instant::now());
        metrics.restorable_dropped.inc_by(dropped as u64);
        waited == 0 && lost.waiting() > 0
    }

    pub(crate) fn contains(&self, id: &str, user_id: Option<&str>) -> bool {
        self.clients.as_ref().is_some_and(|lost| lock(lost).contains(id, user_id, Instant::now()))
    }

    /// Takes the state of a lost connection, after its `on_disconnected` has run.
    pub(crate) async fn take(&self, id: &str, user_id: Option<&str>) -> Option<Box<LostClient>> {
        loop {
            let found = lock(self.clients.as_ref()?).take(id, user_id, Instant::now());
            match found {
                FoundLost::Taken(lost) => return Some(lost),
                FoundLost::Ending(ended) => ended.cancelled().await,
                FoundLost::Nothing => return None,
            }
        }
    }

    pub(crate) fn drop_old(&self, now: Instant) -> Option<Instant> {
        lock(self.clients.as_ref()?).drop_old(now)
    }
}
