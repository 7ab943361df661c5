//! Count of responses being sent.

use std::sync::Arc;

use crate::shard::Shared;

/// Guard of a response being sent. A stopping node waits for it, as for client sockets.
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
