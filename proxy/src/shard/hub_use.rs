//! Use of a hub by a shard: what there is of it that goes by its index.

use super::ShardState;
use crate::upstream::{AppServerId, HubIndex};

impl ShardState {
    /// Whether any client of a hub is here.
    #[must_use]
    pub(crate) fn has_clients_of(&self, hub: HubIndex) -> bool {
        self.connections.census().iter().any(|(kind, _)| kind.hub == hub)
    }

    /// App servers at which clients of any hub here are at home.
    pub(crate) fn homes_of_clients(&self) -> impl Iterator<Item = AppServerId> {
        self.connections.census().iter().map(|(kind, _)| kind.app)
    }

    /// Whether anything here goes by the index of a hub: a client, or the end of one that is to be told.
    #[must_use]
    pub(crate) fn uses_hub(&self, hub: HubIndex) -> bool {
        self.has_clients_of(hub) || self.reassignment.has_ends_of(hub)
    }
}
