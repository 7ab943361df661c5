//! Clients that the routes in force lead to another group: their app servers hand them over, and nobody is
//! disconnected.
//!
//! A client moves once an app server of its new group can be reached; until then it stays. One that a route rejects by
//! now stays in its group as well, because rejections judge new connections; if the group is gone, the default one
//! takes it.

use crate::shard::command::ShardCommand;
use crate::shard::connection::Role;
use crate::shard::shard_state::ShardState;
use crate::shard::slot::Slot;
use crate::upstream::{AppServerId, RouteChoice};

/// Clients whose routes are asked in one step; the shard serves others in between.
const STEP_CLIENTS: usize = 256;

/// Asks the routes anew for all clients, in steps.
pub(crate) fn reroute(state: &mut ShardState) {
    state.reroute_due = false;
    let slots = state.core.connections.everyone().into_iter().map(|(slot, _)| slot).collect();
    reroute_some(state, slots);
}

/// Has the routes be asked anew with the next tick: a link of another group may have opened. Without any route now,
/// clients of a former one may have waited for an app server of the default group.
pub(crate) fn owe(state: &mut ShardState) {
    let hubs = &state.core.context.shared.hubs;
    state.reroute_due = hubs.has_routes() || hubs.groups().are_any();
}

/// Asks the routes anew for some of these clients, and has the shard go on with the others behind what waits in
/// its inbox.
pub(crate) fn reroute_some(state: &mut ShardState, mut slots: Vec<Slot>) {
    let rest = slots.split_off(slots.len().min(STEP_CLIENTS));
    slots.into_iter().for_each(|slot| reroute_one(state, slot));
    if let Some(own) =
        state.core.context.shared.shards().get(usize::from(state.core.context.index)).filter(|_| !rest.is_empty())
    {
        own.order(ShardCommand::Reroute(rest));
    }
}

/// Asks the routes again for clients that wait for an app server: while theirs is down, the next route may take
/// them.
pub(crate) fn reroute_unassigned(state: &mut ShardState) {
    if state.core.context.shared.hubs.has_routes() {
        let unassigned: Vec<_> = state.assignments.reassignment.unassigned().collect();
        unassigned.into_iter().for_each(|slot| reroute_one(state, slot));
    }
}

/// Asks the routes anew for a client.
pub(crate) fn reroute_one(state: &mut ShardState, slot: Slot) {
    state.assignments.mirrored.refresh_mirrors(&mut state.core, slot);
    let Some((hub, group)) = state.core.route_of(slot) else { return };
    let name = RouteChoice::group_name(group.as_ref()).to_owned();
    let rules = state.core.context.shared.hubs.rules();
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    let is_waiting = client.home().app() == AppServerId::NONE || client.is_unassigned();
    // Where its group is no more, it has to leave in any case.
    if !hub.is_served_by(&name) && !is_waiting && rules.has_group(client.cold().group_name()) {
        return;
    }
    let is_there = *hub.group_of(client.home().app()) == *name;
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
    if !state.assignments.sided.leave_side_of(&mut state.core, &mut state.assignments.reassignment, slot, &name) {
        return owe(state);
    }
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    client.cold_mut().set_group(group);
    state.core.ask_for(slot, &Role::Home);
}
