//! Search for calls that app servers do not answer, or only after earlier calls of the same client, in short steps
//! because the shard serves no clients meanwhile.

use std::collections::HashMap;

use crate::engine::shard::{ShardState, Slot, SlotWalk};
use crate::engine::upstream::HubIndex;

/// Time after which a call counts as queued, and number of such calls from which a client has a queue: more than
/// clients call in parallel.
const QUEUED_AFTER_S: u32 = 8;
const QUEUED_MIN: usize = 10;

/// Clients of a hub with calls that wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WaitingCalls {
    /// Clients with a call that has waited for too long.
    pub hung: HungCalls,
    /// Clients with many calls that wait: each starts after the earlier ones.
    pub queued: HungCalls,
}

impl WaitingCalls {
    pub(crate) fn add(&mut self, others: Self) {
        self.hung.add(others.hung);
        self.queued.add(others.queued);
    }
}

/// Clients of a hub with calls that have waited for too long.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HungCalls {
    pub clients: u64,
    /// Longest wait, in seconds.
    pub longest_s: u32,
}

impl HungCalls {
    fn add(&mut self, others: Self) {
        self.clients += others.clients;
        self.longest_s = self.longest_s.max(others.longest_s);
    }
}

/// Search over all clients of a shard.
#[derive(Debug)]
pub(crate) struct HungCallSearch {
    pub found: HashMap<HubIndex, WaitingCalls>,
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
            let (mut longest_s, mut queued) = (0, 0);
            for wait_s in client.assignments_mut().call_waits(now) {
                longest_s = wait_s.max(longest_s);
                queued += usize::from(wait_s >= QUEUED_AFTER_S);
            }
            let client_if =
                |is_found| if is_found { HungCalls { clients: 1, longest_s } } else { HungCalls::default() };
            let (hung, queued) = (client_if(longest_s >= self.after_s), client_if(queued >= QUEUED_MIN));
            if hung.clients + queued.clients > 0 {
                self.found.entry(client.home().hub()).or_default().add(WaitingCalls { hung, queued });
            }
        }
        self.walk.is_over(slots)
    }
}
