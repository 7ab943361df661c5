//! Clients that the routes in force lead to another group: their app servers hand them over, and nobody is disconnected.
//!
//! A client moves once an app server of its new group can be reached; until then it stays. One that a route rejects by now
//! stays in its group as well, because rejections judge new connections; if the group is gone, the default one takes it.

use std::sync::Arc;

use super::close_reason::CloseReason;
use super::connection::PauseReason;
use super::reassignment::moved_to;
use super::slot::Slot;
use super::state::ShardState;
use crate::upstream::{AppServerId, Hub, RouteChoice, ServerGroup};

/// Clients whose routes are asked in one step; the shard serves others in between.
const STEP_CLIENTS: usize = 256;

impl ShardState {
    /// Asks the routes anew for all clients, in steps.
    pub(crate) fn reroute(&mut self) {
        self.is_reroute_due = false;
        let slots = self.connections.everyone().into_iter().map(|(slot, _)| slot).collect();
        self.reroute_some(slots);
    }

    /// Has the routes be asked anew with the next tick: a link of another group may have opened. Without any route now,
    /// clients of a former one may have waited for an app server of the default group.
    pub(super) fn owe_reroute(&mut self) {
        let hubs = &self.context.shared.hubs;
        self.is_reroute_due = hubs.has_routes() || hubs.has_groups();
    }

    fn reroute_some(&mut self, mut slots: Vec<Slot>) {
        let rest = slots.split_off(slots.len().min(STEP_CLIENTS));
        slots.into_iter().for_each(|slot| self.reroute_one(slot));
        if let Some(own) =
            self.context.shared.shards().get(usize::from(self.context.index)).filter(|_| !rest.is_empty())
        {
            own.post(move |state| state.reroute_some(rest));
        }
    }

    /// Asks the routes again for clients that wait for an app server: while theirs is down, the next route may take them.
    pub(super) fn reroute_unassigned(&mut self) {
        if self.context.shared.hubs.has_routes() {
            self.reassignment.unassigned_slots().into_iter().for_each(|slot| self.reroute_one(slot));
        }
    }

    /// Asks the routes anew for a client.
    pub(super) fn reroute_one(&mut self, slot: Slot) {
        self.refresh_mirrors(slot);
        let Some((hub, group)) = self.route_of(slot) else { return };
        let name = RouteChoice::group_name(group.as_ref()).to_owned();
        let rules = self.context.shared.hubs.rules();
        let Some(client) = self.connections.live_mut(slot) else { return };
        let is_waiting =
            client.home.app() == AppServerId::NONE || client.pause_reasons().contains(PauseReason::Unassigned);
        // Where its group is no more, it has to leave in any case.
        if !hub.is_served_by(&name) && !is_waiting && rules.has_group(client.cold.group_name()) {
            return;
        }
        let is_there = *hub.group_of(client.home.app()) == *name;
        if is_there || is_waiting {
            client.cold.group = group;
            return;
        }
        if client.cold.is_leaving {
            client.cold.group = group;
            return;
        }
        if !client.can_be_handed_over() || client.cold.is_bound {
            return;
        }
        if !self.leave_side_of(slot, &name) {
            return self.owe_reroute();
        }
        let Some(client) = self.connections.live_mut(slot) else { return };
        client.cold.group = group;
        client.cold.is_leaving = true;
        client.pause(PauseReason::HandingOver);
        client.home.send(&moved_to(&client.id, ""));
    }

    /// Ends the side home that a client has in the group that its home moves to; `false` while its calls run.
    fn leave_side_of(&mut self, slot: Slot, group: &str) -> bool {
        let is_idle = self.side_mut(slot, group).map(|side| side.is_idle());
        if is_idle == Some(true) {
            self.end_side(slot, group, &CloseReason::ordered(None));
        }
        is_idle != Some(false)
    }

    /// Gives a client that has come from another node the group that its app server is of, and its mirrors.
    pub(super) fn join_rules(&mut self, slot: Slot) {
        let Some(client) = self.connections.live(slot) else { return };
        let (hubs, home) = (&self.context.shared.hubs, &client.home);
        let group = hubs.all().get(home.hub().get()).and_then(|hub| hubs.group(&hub.group_of(home.app())));
        if let Some(client) = self.connections.live_mut(slot) {
            client.cold.group = group;
        }
        self.refresh_mirrors(slot);
    }

    /// Asks the routes anew for a client that needs another home: its group may be down by now, and a route may lead on.
    pub(super) fn refresh_group(&mut self, slot: Slot) {
        if !self.context.shared.hubs.has_routes() {
            return;
        }
        let Some((_, group)) = self.route_of(slot) else { return };
        if let Some(client) = self.connections.live_mut(slot) {
            client.cold.group = group;
        }
    }

    /// Begins and ends copies of a client as the rules in force want it.
    fn refresh_mirrors(&mut self, slot: Slot) {
        let Some(client) = self.connections.live(slot) else { return };
        if let Some(hub) = self.context.shared.hubs.all().get(client.home.hub().get()).cloned() {
            self.set_mirrors(slot, &hub);
        }
    }

    /// The hub of a client, and its group by the routes in force; `None` where they don't count for it.
    fn route_of(&self, slot: Slot) -> Option<(Arc<Hub>, Option<Arc<ServerGroup>>)> {
        let (client, hubs) = (self.connections.live(slot)?, &self.context.shared.hubs);
        let hub = hubs.all().get(client.home.hub().get()).filter(|hub| !hub.is_of_door())?.clone();
        let open = client.cold.opening.as_ref()?.read()?;
        let kept = || client.cold.group.clone().filter(|group| hubs.rules().has_group(group.name()));
        let group = hubs.route_of(&hub, &open, self.connections.user_of(client)).unwrap_or_else(kept);
        Some((hub, group))
    }
}
