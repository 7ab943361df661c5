//! Rerouting: clients that the current routes send to another group are handed over without a disconnect.
//!
//! A client moves once an app server of its new group is reachable. A client that a route now rejects stays in its
//! group, because rejections apply to new connections; if the group is gone, it moves to the default group.

use crate::engine::shard::command::ShardCommand;
use crate::engine::shard::connection::Role;
use crate::engine::shard::shard_state::ShardState;
use crate::engine::shard::slot::Slot;
use crate::engine::shard::tap::TapEvent;
use crate::engine::upstream::{AppServerId, RouteChoice};

/// Maximum number of clients routed per step. The shard serves others in between.
const STEP_CLIENTS: usize = 256;

/// Evaluates the routes again for all clients, in steps.
pub(crate) fn reroute(state: &mut ShardState) {
    state.reroute_due = false;
    let slots = state.core.connections.everyone().into_iter().map(|(slot, _)| slot).collect();
    reroute_some(state, slots);
}

/// Schedules a routing evaluation for the next tick, because a link of another group may have opened. Also without
/// routes: clients of a former one may wait for the default group.
pub(crate) fn owe(state: &mut ShardState) {
    let hubs = &state.core.context.shared.hubs;
    state.reroute_due = hubs.has_routes() || hubs.groups.has_named_groups();
}

/// Evaluates the routes for some of these clients, and queues the rest in the shard's inbox.
pub(crate) fn reroute_some(state: &mut ShardState, mut slots: Vec<Slot>) {
    let rest = slots.split_off(slots.len().min(STEP_CLIENTS));
    slots.into_iter().for_each(|slot| reroute_one(state, slot));
    if let Some(own) =
        state.core.context.shared.shards().get(usize::from(state.core.context.index)).filter(|_| !rest.is_empty())
    {
        own.order(ShardCommand::Reroute(rest));
    }
}

/// Evaluates the routes for clients that wait for an app server: if their group is down, the next route may
/// apply.
pub(crate) fn reroute_unassigned(state: &mut ShardState) {
    if state.core.context.shared.hubs.has_routes() {
        let unassigned: Vec<_> = state.assignments.reassignment.unassigned().collect();
        unassigned.into_iter().for_each(|slot| reroute_one(state, slot));
    }
}

pub(crate) fn reroute_one(state: &mut ShardState, slot: Slot) {
    state.core.tap_event(slot, &TapEvent::RulesChanged);
    let Some((hub, group)) = state.core.route_of(slot) else { return };
    let name = RouteChoice::group_name(group.as_ref()).to_owned();
    let rules = state.core.context.shared.hubs.rules();
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    let is_waiting = client.home().app == AppServerId::NONE || client.is_unassigned();
    // If its group no longer exists, the client has to leave in any case.
    if !hub.is_served_by(&name) && !is_waiting && rules.has_group(client.cold().group_name()) {
        return;
    }
    let is_there = *hub.group_of(client.home().app) == *name;
    if is_there || is_waiting {
        client.cold_mut().set_group(group);
        return;
    }
    if client.assignments().home().is_leaving() {
        client.cold_mut().set_group(group);
        return;
    }
    if !client.can_be_handed_over() || client.cold().origin().is_bound {
        return;
    }
    if !state.assignments.secondary_clients.leave_secondary_of(
        &mut state.core,
        &mut state.assignments.reassignment,
        slot,
        &name,
    ) {
        return owe(state);
    }
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    client.cold_mut().set_group(group);
    state.core.ask_for(slot, &Role::Home);
}
