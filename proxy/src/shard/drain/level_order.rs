//! Orders to give clients of one app server to another one, and the clients that were asked for.

use std::collections::HashMap;

use crate::shard::connection::{Census, Connections};
use crate::shard::slot::{Serial, Slot};
use crate::upstream::{AppServerId, HubIndex};

/// Order to give clients of one app server to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LevelOrder {
    pub hub: HubIndex,
    pub from: AppServerId,
    pub to: AppServerId,
    pub clients: usize,
}

/// Clients of an app server at a hub of one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LevelCount {
    pub present: u64,
    /// Present clients that were asked for, and are about to go.
    pub going: u64,
    /// Clients of other app servers that are about to come.
    pub coming: u64,
}

/// Client connections of one shard that go to app servers which have come.
#[derive(Debug, Default)]
pub(crate) struct Levelling {
    /// Clients whose app servers were asked for them.
    asked: HashMap<Slot, AskedClient>,
}

/// Client whose app server was asked to hand it over for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedClient {
    pub serial: Serial,
    pub order: LevelOrder,
}

impl Levelling {
    /// Notes that the app server of a client was asked for it.
    pub(crate) fn ask(&mut self, slot: Slot, serial: Serial, order: LevelOrder) {
        self.asked.insert(slot, AskedClient { serial, order });
    }

    /// Takes the order for which the app server of a client was asked for it.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<AskedClient> {
        self.asked.remove(&slot)
    }

    /// Numbers of the clients of app servers at hubs.
    #[must_use]
    pub(crate) fn level_counts(&self, census: &Census) -> HashMap<(HubIndex, AppServerId), LevelCount> {
        let mut counts: HashMap<_, LevelCount> = HashMap::new();
        for (kind, clients) in census.iter() {
            counts.entry((kind.hub, kind.app)).or_default().present += clients;
        }
        for AskedClient { order, .. } in self.asked.values() {
            counts.entry((order.hub, order.from)).or_default().going += 1;
            counts.entry((order.hub, order.to)).or_default().coming += 1;
        }
        counts
    }

    /// Forgets clients that have left, or have lost the app server that was asked for them.
    pub(crate) fn forget_gone(&mut self, connections: &mut Connections) {
        self.asked.retain(|&slot, asked| {
            let client = connections.get_current(slot, asked.serial);
            client.is_some_and(|client| {
                client.assignments().home().is_leaving() && client.home().app() == asked.order.from
            })
        });
    }
}
