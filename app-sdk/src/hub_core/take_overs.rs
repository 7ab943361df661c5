//! Connections that were taken over from other app servers, for the test kit to observe.

use bytestring::ByteString;
use tokio::sync::broadcast;

use crate::connection::Connection;

/// A reassigned connection whose `on_rehomed` has run, by its id; and whether it was kept.
pub(crate) type TakenOver = (ByteString, bool);

/// Maximum number of reassigned connections that a slow observer is behind.
const TAKEN_OVER_MAX: usize = 16;

/// Announcements of the connections that are taken over.
#[derive(Debug)]
pub(crate) struct TakeOvers(broadcast::Sender<TakenOver>);

impl Default for TakeOvers {
    fn default() -> Self {
        Self(broadcast::channel(TAKEN_OVER_MAX).0)
    }
}

impl TakeOvers {
    /// Announces that `on_rehomed` of a connection has run.
    pub(crate) fn announce(&self, connection: &Connection, is_kept: bool) {
        if self.0.receiver_count() > 0 {
            let _ = self.0.send((connection.shared_id(), is_kept));
        }
    }

    /// Observes the connections that are taken over from now on.
    pub(crate) fn observe(&self) -> broadcast::Receiver<TakenOver> {
        self.0.subscribe()
    }
}
