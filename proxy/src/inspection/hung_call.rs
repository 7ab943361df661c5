//! Search for calls that app servers do not answer, in short steps because the shard serves no clients meanwhile.

use std::collections::HashMap;

use crate::shard::{ShardState, Slot, SlotWalk};
use crate::upstream::HubIndex;

/// Clients of a hub with calls that have waited for too long.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HungCalls {
    pub clients: u64,
    /// Longest wait, in seconds.
    pub longest_s: u32,
}

impl HungCalls {
    pub(crate) fn add(&mut self, others: Self) {
        self.clients += others.clients;
        self.longest_s = self.longest_s.max(others.longest_s);
    }
}

/// Search over all clients of a shard.
#[derive(Debug)]
pub(crate) struct HungCallSearch {
    pub found: HashMap<HubIndex, HungCalls>,
    after_s: u32,
    walk: SlotWalk,
}

impl HungCallSearch {
    pub(crate) fn new(after_s: u32) -> Self {
        Self { found: HashMap::new(), after_s, walk: SlotWalk::onward(0) }
    }

    /// Searches the next clients. Returns `true` after the last ones.
    pub(crate) fn step(&mut self, state: &mut ShardState) -> bool {
        let (slots, now) = (state.core.connections.slot_count(), state.core.tick());
        for slot in self.walk.step(slots).filter_map(|slot| Slot::try_from(slot).ok()) {
            let Some(client) = state.core.connections.live_mut(slot) else { continue };
            let longest_s = client.assignments_mut().longest_call(now);
            if longest_s >= self.after_s {
                let hub = client.home().hub();
                self.found.entry(hub).or_default().add(HungCalls { clients: 1, longest_s });
            }
        }
        self.walk.is_over(slots)
    }
}
