//! Rebalancing orders between two app servers, and the clients with a requested handover.

use std::collections::HashMap;
use std::rc::Rc;

use crate::engine::shard::connection::{Census, Connections};
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::{AppServerId, HubIndex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RebalanceOrder {
    pub hub: HubIndex,
    pub from: AppServerId,
    pub to: AppServerId,
    pub clients: usize,
}

/// Clients of an app server at a hub of one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RebalanceCount {
    pub present: u64,
    /// Present clients with a requested handover.
    pub going: u64,
    /// Clients about to arrive from other app servers.
    pub coming: u64,
}

#[derive(Debug, Default)]
pub(crate) struct ServerRebalance {
    /// Clients with a requested handover.
    asked: HashMap<Slot, AskedClient>,
}

#[derive(Debug)]
pub(crate) struct AskedClient {
    pub id: Rc<str>,
    pub order: RebalanceOrder,
}

impl ServerRebalance {
    /// Records that a client's handover was requested.
    pub(crate) fn ask(&mut self, slot: Slot, id: Rc<str>, order: RebalanceOrder) {
        self.asked.insert(slot, AskedClient { id, order });
    }

    /// Takes the order for which a client's handover was requested.
    pub(crate) fn take_client(&mut self, slot: Slot) -> Option<AskedClient> {
        self.asked.remove(&slot)
    }

    pub(crate) fn rebalance_counts(&self, census: &Census) -> HashMap<(HubIndex, AppServerId), RebalanceCount> {
        let mut counts: HashMap<_, RebalanceCount> = HashMap::new();
        for (kind, clients) in census.iter() {
            counts.entry((kind.hub, kind.app)).or_default().present += clients;
        }
        for AskedClient { order, .. } in self.asked.values() {
            counts.entry((order.hub, order.from)).or_default().going += 1;
            counts.entry((order.hub, order.to)).or_default().coming += 1;
        }
        counts
    }

    /// Removes clients that have left or have lost the app server in question.
    pub(crate) fn remove_departed(&mut self, connections: &mut Connections) {
        self.asked.retain(|&slot, asked| {
            let client = connections.get(slot).filter(|client| client.id == asked.id);
            client
                .is_some_and(|client| client.assignments().home().is_leaving() && client.home().app == asked.order.from)
        });
    }
}
