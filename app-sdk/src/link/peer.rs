//! Far ends of links: a slot in the pool of a node, or a service that was dialled.

use std::sync::Arc;

use trunkline_link::LinkOutbox;
use trunkline_protocol::service::Ping;

use crate::connection::LinkId;

/// A place in a pool, of one start of one node, for one hub. Its name is for people: two nodes may have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) hub: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
    pub(crate) slot: u32,
}

impl SlotKey {
    /// Whether both are of nodes with one name, which are not the same one.
    pub(super) fn shares_name(&self, other: &Self) -> bool {
        self.node == other.node && self.boot != other.boot
    }
}

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
