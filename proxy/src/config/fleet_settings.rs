//! Settings of the fleet: the other nodes.

use crate::net::address::Address;

/// Settings of the fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetSettings {
    /// Admin ports of the other nodes, or names that resolve to them; none for a node that needs no other.
    pub peers: Vec<Address>,
}

impl FleetSettings {
    /// Whether this node joins a fleet.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }
}
