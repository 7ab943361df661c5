//! Secondary assignments of clients: start, end, and forwarding of messages for their group. The parts in common with a
//! primary are in `reassignment`.
//!
//! ```text
//!  message for a group ──► secondary? ─┬─ open, opening ──► forwarded
//!                                      ├─ none, or lost ──► app server of the group? ─ yes ──► opened there, forwarded
//!                                      │                       └─ no ──► waits, client paused ──── --hold-timeout ──┐
//!                                      └─ given up, refused ──► error to the caller ◄───────────────────────────────┘
//! ```
//!
//! As with primaries, messages that an app server has received are never sent to another one.

use std::sync::Arc;

use indexmap::IndexSet;
use tracing::warn;
use trunkline_protocol::hub::{CallScan, HandshakeResponse};

use crate::engine::shard::assignments::reassignment::Reassignment;
use crate::engine::shard::close_reason::CloseReason;
use crate::engine::shard::command::LinkLoss;
use crate::engine::shard::connection::{
    Assignment, AssignmentStage, Client, PauseReason, ReleaseReason, Role, SecondaryAssignment, SecondaryAssignments,
};
use crate::engine::shard::shard_core::{CALL_LOST, ShardCore};
use crate::engine::shard::shared::history::short;
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::{AppServerId, HubIndex, LinkHandle};
use crate::ground::routing::Ruleset;

#[derive(Debug, Default)]
pub(crate) struct SecondaryClients {
    all: IndexSet<Slot>,
    /// Rules of the last check.
    rules: Option<Arc<Ruleset>>,
    /// Set while unwanted secondaries wait for their calls to end.
    are_ending: bool,
}

/// App server for a message of a group.
#[derive(Debug)]
pub(crate) enum SideChoice {
    Ready(Arc<LinkHandle>),
    /// None yet; the client is not read until one is available.
    Waits,
    /// None for this reason; the call fails.
    Fails(String),
}

impl SecondaryClients {
    /// Finds the app server for a message of a group. The first message opens the connection there.
    pub(crate) fn side_for(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &Arc<str>,
    ) -> SideChoice {
        let Some(client) = core.connections.live_mut(slot) else { return SideChoice::Waits };
        if client.life().is_opening() {
            // The primary may still refuse the client.
            client.pauses_mut().add(PauseReason::Unassigned);
            return SideChoice::Waits;
        }
        self.add_side(core, slot, group);
        let role = Role::Side(group.clone());
        let is_lost = |side: &mut SecondaryAssignment| side.assignment.is_known_there() && side.link.is_closed();
        if core.side_mut(slot, group).is_some_and(is_lost) {
            // The shard has not yet received the loss.
            core.leave(slot, &role, CALL_LOST);
        }
        reassignment.assign_or_wait(core, slot, &role);
        let Some(side) = core.side_mut(slot, group) else { return SideChoice::Waits };
        match side.assignment.stage() {
            AssignmentStage::Opening | AssignmentStage::Open => SideChoice::Ready(side.link.clone()),
            AssignmentStage::Refused => SideChoice::Fails(refused(group)),
            AssignmentStage::GivenUp => SideChoice::Fails(given_up(group)),
            AssignmentStage::Unassigned { .. } => {
                core.change_assignment(slot, &role, Assignment::wait);
                SideChoice::Waits
            }
        }
    }

    /// Opens secondaries after the primary has answered the hub handshake, one for each group with methods of the hub.
    /// Without an available app server, the first call opens it.
    pub(crate) fn open_sides(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        answer: &[u8],
    ) {
        let is_accepted = HandshakeResponse::read(answer, answer.len());
        if !matches!(is_accepted, Ok(Some((HandshakeResponse { error: None }, _)))) {
            return;
        }
        let Some(rules) = core.connections.live(slot).and_then(|client| core.hub_of(client)?.rules()) else { return };
        for group in rules.message_groups() {
            if !core.is_beside_home(slot, group) {
                continue;
            }
            self.add_side(core, slot, group);
            reassignment.assign_or_wait(core, slot, &Role::Side(group.clone()));
        }
    }

    /// Adds an unassigned secondary, unless the client has one for the group.
    fn add_side(&mut self, core: &mut ShardCore, slot: Slot, group: &Arc<str>) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let nowhere = LinkHandle::nowhere(client.home().hub_identity().clone());
        let sides = client.assignments_mut().sides_to_fill();
        if sides.of_group(group).is_none() {
            sides.add(SecondaryAssignment::new(group.clone(), Arc::new(nowhere)));
            self.all.insert(slot);
        }
    }

    /// Reassigns the secondaries of a link with a closed session.
    pub(crate) fn link_lost(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, loss: &LinkLoss) {
        for (slot, role) in
            self.sides_where(core, |side| side.link.id() == loss.link && side.assignment.is_known_there())
        {
            let assignment = core.connections.live_mut(slot).and_then(|client| client.assignments_mut().of_mut(&role));
            if let Some(assignment) = assignment.filter(|_| loss.is_goodbye) {
                assignment.end();
            }
            core.leave(slot, &role, CALL_LOST);
            reassignment.assign_or_wait(core, slot, &role);
        }
    }

    fn sides_where(&self, core: &ShardCore, is_wanted: impl Fn(&SecondaryAssignment) -> bool) -> Vec<(Slot, Role)> {
        let mut found = Vec::new();
        for &slot in &self.all {
            let sides = core.connections.live(slot).and_then(|client| client.assignments().sides());
            let sides = sides.into_iter().flat_map(|sides| sides.iter()).filter(|side| is_wanted(side));
            found.extend(sides.map(|side| (slot, Role::Side(side.group.clone()))));
        }
        found
    }

    /// Reassigns the secondaries that other app servers have refused to the app server with a new link.
    pub(crate) fn link_opened(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, link: &LinkHandle) {
        let is_refused = |side: &SecondaryAssignment| side.assignment.stage() == AssignmentStage::Refused;
        for (slot, role) in self.sides_where(core, |side| is_refused(side) && side.link.app() != link.app()) {
            core.leave(slot, &role, CALL_LOST);
            reassignment.assign_or_wait(core, slot, &role);
        }
    }

    /// Ends secondaries that no rule requires.
    pub(crate) fn tick(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        if !self.all.is_empty() {
            self.end_unwanted_sides(core, reassignment);
        }
    }

    /// Ends secondaries of groups without methods of their hub, once their calls have ended.
    fn end_unwanted_sides(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        let rules = core.context.shared.hubs.rules();
        let are_same = self.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, &rules));
        if are_same && !self.are_ending {
            return;
        }
        (self.rules, self.are_ending) = (Some(rules), false);
        for (slot, role) in self.sides_where(core, |_| true) {
            let Role::Side(group) = role else { continue };
            let hub = core.connections.live(slot).and_then(|client| core.hub_of(client));
            let hub_rules = hub.and_then(|hub| hub.rules());
            if hub_rules.is_some_and(|rules| rules.message_groups().any(|known| *known == group)) {
                continue;
            }
            match core.side_mut(slot, &group).is_some_and(|side| side.is_idle() || side.assignment.wants_link()) {
                true => self.end_side(core, reassignment, slot, &group, &CloseReason::ordered(None)),
                false => self.are_ending = true,
            }
        }
    }

    /// Ends one secondary of a client that stays connected.
    pub(crate) fn end_side(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
        reason: &CloseReason,
    ) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(sides) = client.assignments_mut().sides_mut() else { return };
        let side = sides.remove(group);
        if sides.is_empty() {
            client.assignments_mut().take_sides();
            self.forget(slot);
        }
        client.refresh_pauses(core.tick);
        if let Some(side) = side {
            self.notify_secondary_of_end(core, reassignment, slot, &side, reason);
        }
    }

    pub(crate) fn end_sides(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        sides: &SecondaryAssignments,
        reason: &CloseReason,
    ) {
        self.forget(slot);
        sides.iter().for_each(|side| self.notify_secondary_of_end(core, reassignment, slot, side, reason));
    }

    fn notify_secondary_of_end(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        side: &SecondaryAssignment,
        reason: &CloseReason,
    ) {
        // If the app server is now the primary, it still has the connection.
        let home_of = |client: &&Client| client.home().app() != side.link.app();
        let Some(client) = core.connections.get(slot).filter(home_of) else { return };
        let is_notified =
            side.assignment.is_known_there() && side.link.queue(&reason.notice_for(&side.link, client.id()));
        let released = side.assignment.released();
        if side.assignment.was_open() && released != Some(ReleaseReason::Ended) {
            let group = core.context.shared.hubs.groups().find(&side.group);
            reassignment.ended(client, (&side.link, group, released), reason, is_notified, core.tick);
        }
    }

    /// Asks a stopping app server to hand over its secondary connections.
    pub(crate) fn app_stopping(&mut self, core: &mut ShardCore, hub: HubIndex, app: AppServerId) {
        let is_there = |side: &SecondaryAssignment| side.link.hub() == hub && side.link.app() == app;
        for (slot, role) in self.sides_where(core, |side| is_there(side) && side.assignment.is_known_there()) {
            core.ask_for(slot, &role);
        }
    }

    /// Handles the refusal of a connection by a secondary's app server: its calls fail.
    pub(crate) fn side_refused(&mut self, core: &mut ShardCore, slot: Slot, group: &Arc<str>, error: &str) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let connection = short(client.id()).to_owned();
        if core.context.may_log() {
            warn!(connection, group = &**group, error, "app server refused a secondary connection");
        }
        let role = Role::Side(group.clone());
        core.leave(slot, &role, &refused(group));
        core.change_assignment(slot, &role, |side, _| side.refuse());
    }
}

impl SecondaryClients {
    fn forget(&mut self, slot: Slot) {
        self.all.swap_remove(&slot);
    }

    /// Records a call to a secondary. Returns `false` if the client has too many open uploads there.
    pub(crate) fn begin_side_call(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        group: &str,
        call: &CallScan<'_>,
    ) -> bool {
        let calls_max = core.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = core.connections.live_mut(slot) else { return true };
        let Some(side) = client.assignments_mut().sides_mut().and_then(|sides| sides.of_group(group)) else {
            return true;
        };
        let has_room = side.begin(call);
        if client.assignments().have_too_many_calls(calls_max) {
            client.pauses_mut().add(PauseReason::PendingCalls);
        }
        has_room
    }

    /// Ends the secondary in the group of a new primary. Returns `false` while its calls are running.
    pub(crate) fn leave_side_of(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
    ) -> bool {
        let is_idle = core.side_mut(slot, group).map(|side| side.is_idle());
        if is_idle == Some(true) {
            self.end_side(core, reassignment, slot, group, &CloseReason::ordered(None));
        }
        is_idle != Some(false)
    }
}

fn refused(group: &str) -> String {
    format!("The app server of the group '{group}' has refused this connection: the method was not called.")
}

fn given_up(group: &str) -> String {
    format!("No app server of the group '{group}' could be reached in time: the method was not called.")
}
