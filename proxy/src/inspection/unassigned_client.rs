//! Clients that wait for an app server, by hub.

use std::collections::HashMap;

use crate::shard::ShardState;
use crate::upstream::HubIndex;

/// Clients of a hub that wait for an app server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UnassignedClients {
    pub count: usize,
    /// Longest wait, in seconds.
    pub waited_s: u32,
}

impl UnassignedClients {
    pub(crate) fn add(&mut self, others: Self) {
        self.count += others.count;
        self.waited_s = self.waited_s.max(others.waited_s);
    }
}

pub(crate) fn unassigned_by_hub(state: &ShardState) -> HashMap<HubIndex, UnassignedClients> {
    let mut hubs = HashMap::<_, UnassignedClients>::new();
    for slot in state.assignments.reassignment.unassigned() {
        if let Some(client) = state.core.connections.live(slot) {
            let since = client.assignments().home().waits_since().unwrap_or(state.core.tick());
            let waited_s = state.core.tick().saturating_sub(since);
            hubs.entry(client.home().hub()).or_default().add(UnassignedClients { count: 1, waited_s });
        }
    }
    hubs
}
