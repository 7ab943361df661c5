//! Count of the answers that are still being sent.

use std::sync::Arc;

use crate::shard::Shared;

/// Guard of an answer that is being sent: a stopping node waits for it, as it does for the sockets of clients.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Shared>);

impl InFlight {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.socket_began();
        Self(shared)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.socket_ended();
    }
}
