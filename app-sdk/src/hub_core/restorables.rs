//! Lost clients whose groups and items are kept until they begin anew.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;

use super::lost_clients::{FoundLost, LostClient, LostClients, is_loss};
use crate::connection::{Connection, Limits, RestoredFrom};
use crate::metrics::HubMetrics;
use crate::sync::lock;

/// Time for which proxies keep a client without a socket or a request, unless they are told otherwise.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S);

/// Lost clients of a hub that may get their groups and items back.
#[derive(Debug)]
pub(crate) struct Restorables {
    /// `None` where none does.
    clients: Option<Mutex<LostClients>>,
    client_timeout: Duration,
}

impl Restorables {
    pub(super) fn new(limits: &Limits) -> Self {
        let clients = limits.restored_within.map(|within| Mutex::new(LostClients::new(within)));
        Self { clients, client_timeout: limits.client_timeout }
    }

    /// Whether lost clients get their groups and items back.
    pub(crate) fn are_kept(&self) -> bool {
        self.clients.is_some()
    }

    /// Notes the end of a connection whose client may begin anew. To be called before its worker can see the end.
    pub(super) fn begin(&self, connection: &Connection, cause: Cause) {
        if let Some(lost) = self.clients.as_ref().filter(|_| is_loss(cause)) {
            let user_id = connection.request().user_id();
            lock(lost).begin(connection.shared_id(), LostClient::new(cause, self.lost_at(connection, cause), user_id));
        }
    }

    /// Time at which a connection may have been lost that ends now: noticing it took a while.
    fn lost_at(&self, connection: &Connection, cause: Cause) -> Instant {
        let (now, client_timeout) = (Instant::now(), self.client_timeout);
        let (heard_at, may_return) = (connection.node().heard_at(), connection.home().moves_between_nodes());
        let unnoticed_for = match cause {
            Cause::LinkLost => now - heard_at,
            // Of its node nothing is heard any more, so that is what was lost.
            Cause::Restored if !connection.node().is_linked() => now - heard_at,
            Cause::Restored => (now - heard_at).max(client_timeout),
            Cause::KeepAliveTimeout => client_timeout,
            Cause::PollsStopped => RECONNECT_TIMEOUT,
            Cause::Drained | Cause::Rebalanced => Duration::ZERO,
            _ if may_return => RECONNECT_TIMEOUT,
            _ => Duration::ZERO,
        };
        now.checked_sub(unnoticed_for).unwrap_or(now)
    }

    /// Keeps what a connection had that has ended, if its client may begin anew. Returns whether somebody has to begin
    /// to [drop](Self::drop_old) what is old.
    pub(crate) fn end(&self, connection: &Connection, was_connected: bool, metrics: &HubMetrics) -> bool {
        let Some(lost) = &self.clients else { return false };
        if !lock(lost).is_ending(connection.id()) {
            return false;
        }
        // What was restored is not lost because its connection was, too, before its hook had run.
        let has_any = was_connected || connection.items().get::<RestoredFrom>().is_some();
        let had = has_any.then(|| connection.take_belongings());
        let mut lost = lock(lost);
        let waited = lost.waiting();
        let dropped = lost.end(connection.id(), had, Instant::now());
        metrics.restorable_dropped.inc_by(dropped as u64);
        waited == 0 && lost.waiting() > 0
    }

    /// Whether anything is kept of a lost connection for a client with this user, or about to be.
    pub(crate) fn contains(&self, id: &str, user_id: Option<&str>) -> bool {
        self.clients.as_ref().is_some_and(|lost| lock(lost).contains(id, user_id, Instant::now()))
    }

    /// Takes what the client of a lost connection had, once `on_disconnected` of that has run.
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

    /// Drops what lost clients had whose time is over. Returns when that is to be done again.
    pub(crate) fn drop_old(&self, now: Instant) -> Option<Instant> {
        lock(self.clients.as_ref()?).drop_old(now)
    }
}
