//! Rebalancing between app servers: some clients move to a new one that has fewer than its share.
//!
//! ```text
//!  order ─► search for idle clients from a random slot ─► one by one, over most of a second:
//!     own SDK     paused ─► handover requested if idle ─► handed over ─► opened at the new server
//!                               └─ not idle: resumed, and the client stays
//!     dial-in            ─► closed there (Migrate-To) ─► opened at the new server (Migrate-From)
//! ```
//!
//! A client is idle if it waits for no reply and is not moving. With dial-in, a message without a reply may still be
//! being processed unnoticed, so only clients that have been silent for a moment move.

use std::sync::Arc;

use trunkline_protocol::id::random_bytes;
use trunkline_protocol::manifest::{IF_IDLE_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::{CloseConnection, FlowOperation, ServiceMessage};

use crate::engine::shard::connection::{Assignment, Client, Role, moved_to};
use crate::engine::shard::drain::departure_search::{DepartureSearch, Fit};
use crate::engine::shard::drain::rebalance_order::RebalanceOrder;
use crate::engine::shard::drain::reroute::reroute_one;
use crate::engine::shard::shard_core::ShardCore;
use crate::engine::shard::shard_state::ShardState;
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::{HomeLink, Pool};

/// Ticks without data from a dial-in client before it may move.
const SILENT_TICKS: u32 = 2;

/// Starts the search for an order at a random slot, so that different clients move with each release.
pub(crate) fn rebalance_search(order: &RebalanceOrder) -> DepartureSearch {
    DepartureSearch::new(order.clients, usize::from_ne_bytes(random_bytes()) / 2)
}

/// Runs one step of that search. Returns `true` after the last one.
pub(crate) fn step_rebalance_search(core: &ShardCore, order: &RebalanceOrder, search: &mut DepartureSearch) -> bool {
    search.step(&core.connections, |client| may_be_rebalanced(core, client, order).then_some(Fit::Preferred))
}

/// Reassigns a client of an order at its scheduled time.
pub(crate) fn rebalance_due(state: &mut ShardState, slot: Slot, order: &RebalanceOrder) {
    let client = state.core.connections.live(slot);
    if client.is_some_and(|client| may_be_rebalanced(&state.core, client, order)) {
        rebalance(state, slot, order);
    }
}

/// Assigns the new server to a client, or requests its handover.
fn rebalance(state: &mut ShardState, slot: Slot, order: &RebalanceOrder) {
    let Some(to) = new_server(&state.core, slot, order).and_then(|pool| pool.choose_home()) else { return };
    let Some(client) = state.core.connections.live(slot) else { return };
    if client.home().capabilities.confirms_hand_over {
        let (id, request) = (client.id.clone(), ask_if_idle(&client.id));
        state.core.ask_to_hand_over(slot, &Role::Home, &request);
        state.server_rebalance.ask(slot, id, *order);
    } else if !state.core.context.shared.client_results.is_waiting_for(&client.id) {
        let instance = state.core.context.shared.hubs.instance(to.app);
        client.home().send(&moved_to(&client.id, &instance));
        state.reassign_to(slot, &to);
        state.core.context.counters.app_rebalanced.increment();
    }
}

/// Takes the new server's link for a client handed over for it.
pub(crate) fn take_rebalance_target(state: &mut ShardState, slot: Slot) -> Option<HomeLink> {
    let asked = state.server_rebalance.take_client(slot)?;
    state.core.connections.get(slot).filter(|client| client.id == asked.id)?;
    state.core.refresh_group(slot);
    let home = new_server(&state.core, slot, &asked.order)?.choose_home()?;
    state.core.context.counters.app_rebalanced.increment();
    Some(home)
}

/// Resumes a client that its app server keeps because it is not idle there. Returns `false` if the client is
/// leaving for another reason.
pub(crate) fn stay_assigned(state: &mut ShardState, slot: Slot) -> bool {
    let now = state.core.tick;
    let Some(asked) = state.server_rebalance.take_client(slot) else { return false };
    let Some(client) = state.core.connections.live_mut(slot).filter(|client| client.id == asked.id) else {
        return false;
    };
    client.change_assignment(&Role::Home, now, Assignment::stay);
    let hubs = &state.core.context.shared.hubs;
    let pool = hubs.pool_of(client.home());
    // If its app server is stopping by now or a route has changed, the client leaves even if not idle.
    if pool.is_some_and(|pool| pool.is_draining()) {
        state.core.ask_for(slot, &Role::Home);
    } else if hubs.has_routes() || hubs.groups.has_named_groups() {
        reroute_one(state, slot);
    }
    true
}

/// Resumes a client during a handover because its app server waits for input.
pub(crate) fn read_on(state: &mut ShardState, slot: Slot) {
    if !stay_assigned(state, slot) {
        state.core.control(slot, &Role::Home, FlowOperation::ReadOn);
    }
}

/// Message that requests a handover if the connection is idle.
fn ask_if_idle(id: &str) -> ServiceMessage {
    let headers = [(MIGRATE_TO_HEADER, ""), (IF_IDLE_HEADER, "1")];
    let headers = headers.map(|(name, value)| (name.into(), vec![value.into()])).into();
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}

/// Whether an order may move this client now: it is idle, and does not notice the move.
fn may_be_rebalanced(core: &ShardCore, client: &Client, order: &RebalanceOrder) -> bool {
    let (home, assignment) = (client.home(), client.assignments().home());
    let is_there = home.app == order.from && home.hub() == order.hub && client.life().is_open();
    let is_at_rest = || {
        let stays = client.cold().origin().is_bound || assignment.is_leaving() || client.cold().stay().is_moving();
        !stays && client.pauses().is_empty() && !assignment.calls().are_pending()
    };
    let is_here = || !client.is_in_transit() && !client.is_away();
    let can_go = || match home.capabilities.confirms_hand_over {
        true => client.can_be_handed_over() && home.supports_handovers(),
        false => client.can_move() && core.tick.saturating_sub(client.liveness().last_received()) >= SILENT_TICKS,
    };
    is_there && is_at_rest() && is_here() && can_go()
}

/// New server of an order, while it accepts clients of this group.
fn new_server(core: &ShardCore, slot: Slot, order: &RebalanceOrder) -> Option<Arc<Pool>> {
    let client = core.connections.get(slot)?;
    let pool = core.context.shared.hubs.at(order.hub)?.pool_of(order.to)?;
    (*pool.app.group.name == *client.cold().group_name()).then_some(pool)
}

#[cfg(test)]
mod tests;
