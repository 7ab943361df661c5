//! Service at the far end of a link that was dialled.

use std::sync::Arc;

use trunkline_link::LinkOutbox;
use trunkline_protocol::service::Ping;

use crate::connection::LinkId;

/// Handler of the pings of a service, beside those that keep a link alive.
pub(crate) trait ServicePings: Send + Sync {
    /// Handles a ping that a server connection has brought, whose answers go into its `outbox`.
    fn handle_ping(&self, link: LinkId, outbox: &LinkOutbox, ping: &Ping);
}

/// Service at the far end of a link that was dialled.
#[derive(Clone)]
pub(crate) struct Service {
    /// Name of the service, the same for all its server connections.
    pub(crate) name: Arc<str>,
    pub(crate) pings: Arc<dyn ServicePings>,
}
