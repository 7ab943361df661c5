//! Peers of links: a slot in the pool of a node, or a dialled service.

use std::sync::Arc;

use trunkline_link::LinkOutbox;
use trunkline_protocol::service::Ping;

use crate::connection::LinkId;

/// A slot in the pool of one node process for one hub. The node name is for display: two nodes may share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) hub: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
    pub(crate) slot: u32,
}

impl SlotKey {
    /// Whether both are slots of one node process for one hub.
    pub(super) fn shares_pool(&self, other: &Self) -> bool {
        self.hub == other.hub && self.boot == other.boot && self.node == other.node
    }

    /// Whether both belong to different node processes with the same name.
    pub(super) fn shares_name(&self, other: &Self) -> bool {
        self.node == other.node && self.boot != other.boot
    }
}

/// Handler of the pings of a service, apart from keep-alive.
pub(crate) trait ServicePings: Send + Sync {
    /// Handles a ping from a server connection. Replies go into its `outbox`.
    fn handle_ping(&self, link: LinkId, outbox: &LinkOutbox, ping: &Ping);
}

/// Service as the peer of a dialled link.
#[derive(Clone)]
pub(crate) struct Service {
    /// Name of the service, the same for all its server connections.
    pub(crate) name: Arc<str>,
    pub(crate) pings: Arc<dyn ServicePings>,
}
