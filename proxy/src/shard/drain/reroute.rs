//! Clients that the routes in force lead to another group: their app servers hand them over, and nobody is
//! disconnected.
//!
//! A client moves once an app server of its new group can be reached; until then it stays. One that a route rejects by
//! now stays in its group as well, because rejections judge new connections; if the group is gone, the default one
//! takes it.

use crate::shard::assignments::Assignments;
use crate::shard::command::ShardCommand;
use crate::shard::connection::Role;
use crate::shard::shard_core::ShardCore;
use crate::shard::slot::Slot;
use crate::upstream::{AppServerId, RouteChoice};

/// Clients whose routes are asked in one step; the shard serves others in between.
const STEP_CLIENTS: usize = 256;

/// Routes that are asked anew for clients that are there.
#[derive(Debug, Default)]
pub(crate) struct Rerouting {
    /// They are to be asked for all clients at the next tick.
    pub(crate) is_due: bool,
}

impl Rerouting {
    /// Asks the routes anew for all clients, in steps.
    pub(crate) fn reroute(&mut self, core: &mut ShardCore, assignments: &mut Assignments) {
        self.is_due = false;
        let slots = core.connections.everyone().into_iter().map(|(slot, _)| slot).collect();
        self.reroute_some(core, assignments, slots);
    }

    /// Has the routes be asked anew with the next tick: a link of another group may have opened. Without any route now,
    /// clients of a former one may have waited for an app server of the default group.
    pub(crate) fn owe(&mut self, core: &mut ShardCore) {
        let hubs = &core.context.shared.hubs;
        self.is_due = hubs.has_routes() || hubs.groups().are_any();
    }

    /// Asks the routes anew for some of these clients, and has the shard go on with the others behind what waits in
    /// its inbox.
    pub(crate) fn reroute_some(&mut self, core: &mut ShardCore, assignments: &mut Assignments, mut slots: Vec<Slot>) {
        let rest = slots.split_off(slots.len().min(STEP_CLIENTS));
        slots.into_iter().for_each(|slot| self.reroute_one(core, assignments, slot));
        if let Some(own) =
            core.context.shared.shards().get(usize::from(core.context.index)).filter(|_| !rest.is_empty())
        {
            own.order(ShardCommand::Reroute(rest));
        }
    }

    /// Asks the routes again for clients that wait for an app server: while theirs is down, the next route may take
    /// them.
    pub(crate) fn reroute_unassigned(&mut self, core: &mut ShardCore, assignments: &mut Assignments) {
        if core.context.shared.hubs.has_routes() {
            let unassigned: Vec<_> = assignments.reassignment.unassigned().collect();
            unassigned.into_iter().for_each(|slot| self.reroute_one(core, assignments, slot));
        }
    }

    /// Asks the routes anew for a client.
    pub(crate) fn reroute_one(&mut self, core: &mut ShardCore, assignments: &mut Assignments, slot: Slot) {
        assignments.mirrored.refresh_mirrors(core, slot);
        let Some((hub, group)) = core.route_of(slot) else { return };
        let name = RouteChoice::group_name(group.as_ref()).to_owned();
        let rules = core.context.shared.hubs.rules();
        let Some(client) = core.connections.live_mut(slot) else { return };
        let is_waiting = client.home.app() == AppServerId::NONE || client.is_unassigned();
        // Where its group is no more, it has to leave in any case.
        if !hub.is_served_by(&name) && !is_waiting && rules.has_group(client.cold.group_name()) {
            return;
        }
        let is_there = *hub.group_of(client.home.app()) == *name;
        if is_there || is_waiting {
            client.cold.group = group;
            return;
        }
        if client.cold.assignment.is_leaving {
            client.cold.group = group;
            return;
        }
        if !client.can_be_handed_over() || client.cold.is_bound {
            return;
        }
        if !assignments.sided.leave_side_of(core, &mut assignments.reassignment, slot, &name) {
            return self.owe(core);
        }
        let Some(client) = core.connections.live_mut(slot) else { return };
        client.cold.group = group;
        core.ask_for(slot, &Role::Home);
    }
}
