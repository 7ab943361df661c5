//! Connections that were closed here while they moved. A pure value; its lock is the caller's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;

use crate::connection::Connection;

/// Connections whose last frames wait for the node that has them by now, oldest first. Those of which no node has told
/// in time are forgotten with the next one.
#[derive(Debug, Default)]
pub(super) struct Parting(VecDeque<(Instant, Arc<Connection>)>);

impl Parting {
    pub(super) fn push(&mut self, connection: &Arc<Connection>) {
        let (now, longest) = (Instant::now(), Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S));
        while self.0.pop_front_if(|(since, _)| now.duration_since(*since) > longest).is_some() {}
        self.0.push_back((now, Arc::clone(connection)));
    }

    pub(super) fn take(&mut self, id: &str) -> Option<Arc<Connection>> {
        let place = self.0.iter().position(|(_, connection)| connection.id() == id)?;
        self.0.remove(place).map(|(_, connection)| connection)
    }
}
