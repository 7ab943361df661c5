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
use trunkline_protocol::cause::Cause;
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
pub(crate) enum SecondaryChoice {
    Ready(Arc<LinkHandle>),
    /// None yet; the client is not read until one is available.
    Waits,
    /// None for this reason; the call fails.
    Fails(String),
}

impl SecondaryClients {
    /// Finds the app server for a message of a group. The first message opens the connection there.
    pub(crate) fn secondary_for(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &Arc<str>,
    ) -> SecondaryChoice {
        let Some(client) = core.connections.live_mut(slot) else { return SecondaryChoice::Waits };
        if client.life().is_opening() {
            // The primary may still refuse the client.
            client.pauses_mut().add_reason(PauseReason::Unassigned);
            return SecondaryChoice::Waits;
        }
        self.add_secondary(core, slot, group);
        let role = Role::Secondary(group.clone());
        let is_lost =
            |secondary: &mut SecondaryAssignment| secondary.assignment.is_known_there() && secondary.link.is_closed();
        if core.secondary_mut(slot, group).is_some_and(is_lost) {
            // The shard has not yet received the loss.
            core.leave(slot, &role, CALL_LOST);
        }
        reassignment.assign_or_wait(core, slot, &role);
        let Some(secondary) = core.secondary_mut(slot, group) else { return SecondaryChoice::Waits };
        match secondary.assignment.stage() {
            AssignmentStage::Opening | AssignmentStage::Open => SecondaryChoice::Ready(secondary.link.clone()),
            AssignmentStage::Refused => SecondaryChoice::Fails(refused(group)),
            AssignmentStage::GivenUp => SecondaryChoice::Fails(given_up(group)),
            AssignmentStage::Unassigned { .. } => {
                core.change_assignment(slot, &role, Assignment::wait);
                SecondaryChoice::Waits
            }
        }
    }

    /// Opens secondaries after the primary has answered the hub handshake, one for each group with methods of the hub.
    /// Without an available app server, the first call opens it.
    pub(crate) fn open_secondaries(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        answer: &[u8],
    ) {
        let is_accepted = HandshakeResponse::read_response(answer, answer.len());
        if !matches!(is_accepted, Ok(Some((HandshakeResponse { error: None }, _)))) {
            return;
        }
        let Some(rules) = core.connections.live(slot).and_then(|client| core.hub_of(client)?.rules()) else { return };
        for group in rules.message_groups() {
            if !core.is_beside_home(slot, group) {
                continue;
            }
            self.add_secondary(core, slot, group);
            reassignment.assign_or_wait(core, slot, &Role::Secondary(group.clone()));
        }
    }

    /// Adds an unassigned secondary, unless the client has one for the group.
    fn add_secondary(&mut self, core: &mut ShardCore, slot: Slot, group: &Arc<str>) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let nowhere = LinkHandle::nowhere(client.home().hub_identity().clone());
        let secondaries = client.assignments_mut().secondaries_to_fill();
        if secondaries.of_group(group).is_none() {
            secondaries.add_assignment(SecondaryAssignment::new(group.clone(), Arc::new(nowhere)));
            self.all.insert(slot);
        }
    }

    /// Reassigns the secondaries of a link with a closed session.
    pub(crate) fn link_lost(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, loss: &LinkLoss) {
        for (slot, role) in self.secondaries_where(core, |secondary| {
            secondary.link.id == loss.link && secondary.assignment.is_known_there()
        }) {
            let assignment = core.connections.live_mut(slot).and_then(|client| client.assignments_mut().of_mut(&role));
            if let Some(assignment) = assignment.filter(|_| loss.is_goodbye) {
                assignment.end_assignment();
            }
            core.leave(slot, &role, CALL_LOST);
            reassignment.assign_or_wait(core, slot, &role);
        }
    }

    fn secondaries_where(
        &self,
        core: &ShardCore,
        is_wanted: impl Fn(&SecondaryAssignment) -> bool,
    ) -> Vec<(Slot, Role)> {
        let mut found = Vec::new();
        for &slot in &self.all {
            let secondaries = core.connections.live(slot).and_then(|client| client.assignments().secondaries());
            let secondaries = secondaries
                .into_iter()
                .flat_map(|secondaries| secondaries.iter())
                .filter(|secondary| is_wanted(secondary));
            found.extend(secondaries.map(|secondary| (slot, Role::Secondary(secondary.group.clone()))));
        }
        found
    }

    /// Reassigns the secondaries that other app servers have refused to the app server with a new link.
    pub(crate) fn link_opened(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, link: &LinkHandle) {
        let is_refused = |secondary: &SecondaryAssignment| secondary.assignment.stage() == AssignmentStage::Refused;
        for (slot, role) in
            self.secondaries_where(core, |secondary| is_refused(secondary) && secondary.link.app != link.app)
        {
            core.leave(slot, &role, CALL_LOST);
            reassignment.assign_or_wait(core, slot, &role);
        }
    }

    /// Ends secondaries that no rule requires.
    pub(crate) fn tick(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        if !self.all.is_empty() {
            self.end_unwanted_secondaries(core, reassignment);
        }
    }

    /// Ends secondaries of groups without methods of their hub, once their calls have ended.
    fn end_unwanted_secondaries(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        let rules = core.context.shared.hubs.rules();
        let are_same = self.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, &rules));
        if are_same && !self.are_ending {
            return;
        }
        (self.rules, self.are_ending) = (Some(rules), false);
        for (slot, role) in self.secondaries_where(core, |_| true) {
            let Role::Secondary(group) = role else { continue };
            let hub = core.connections.live(slot).and_then(|client| core.hub_of(client));
            let hub_rules = hub.and_then(|hub| hub.rules());
            if hub_rules.is_some_and(|rules| rules.message_groups().any(|known| *known == group)) {
                continue;
            }
            match core
                .secondary_mut(slot, &group)
                .is_some_and(|secondary| secondary.is_idle() || secondary.assignment.wants_link())
            {
                true => {
                    self.end_secondary(core, reassignment, slot, &group, &CloseReason::on_request(Cause::Ordered, None))
                }
                false => self.are_ending = true,
            }
        }
    }

    /// Ends one secondary of a client that stays connected.
    pub(crate) fn end_secondary(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
        reason: &CloseReason,
    ) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(secondaries) = client.assignments_mut().secondaries_mut() else { return };
        let secondary = secondaries.remove(group);
        if secondaries.is_empty() {
            client.assignments_mut().take_secondaries();
            self.forget(slot);
        }
        client.refresh_pauses(core.tick);
        if let Some(secondary) = secondary {
            self.notify_secondary_of_end(core, reassignment, slot, &secondary, reason);
        }
    }

    pub(crate) fn end_secondaries(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        secondaries: &SecondaryAssignments,
        reason: &CloseReason,
    ) {
        self.forget(slot);
        secondaries
            .iter()
            .for_each(|secondary| self.notify_secondary_of_end(core, reassignment, slot, secondary, reason));
    }

    fn notify_secondary_of_end(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        secondary: &SecondaryAssignment,
        reason: &CloseReason,
    ) {
        // If the app server is now the primary, it still has the connection.
        let home_of = |client: &&Client| client.home().app != secondary.link.app;
        let Some(client) = core.connections.get(slot).filter(home_of) else { return };
        let is_notified = secondary.assignment.is_known_there()
            && secondary.link.queue(&reason.notice_for(&secondary.link, &client.id));
        let released = secondary.assignment.released();
        if secondary.assignment.was_open() && released != Some(ReleaseReason::Ended) {
            let group = core.context.shared.hubs.groups.find(&secondary.group);
            reassignment.ended(client, (&secondary.link, group, released), reason, is_notified, core.tick);
        }
    }

    /// Asks a stopping app server to hand over its secondary connections.
    pub(crate) fn app_stopping(&mut self, core: &mut ShardCore, hub: HubIndex, app: AppServerId) {
        let is_there = |secondary: &SecondaryAssignment| secondary.link.hub() == hub && secondary.link.app == app;
        for (slot, role) in
            self.secondaries_where(core, |secondary| is_there(secondary) && secondary.assignment.is_known_there())
        {
            core.ask_for(slot, &role);
        }
    }

    /// Handles the refusal of a connection by a secondary's app server: its calls fail.
    pub(crate) fn secondary_refused(&mut self, core: &mut ShardCore, slot: Slot, group: &Arc<str>, error: &str) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let connection = short(&client.id).to_owned();
        if core.context.may_log() {
            warn!(connection, group = &**group, error, "app server refused a secondary connection");
        }
        let role = Role::Secondary(group.clone());
        core.leave(slot, &role, &refused(group));
        core.change_assignment(slot, &role, |secondary, _| secondary.refuse());
    }
}

impl SecondaryClients {
    fn forget(&mut self, slot: Slot) {
        self.all.swap_remove(&slot);
    }

    /// Records a call to a secondary. Returns `false` if the client has too many open uploads there.
    pub(crate) fn begin_secondary_call(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        group: &str,
        call: &CallScan<'_>,
    ) -> bool {
        let calls_max = core.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = core.connections.live_mut(slot) else { return true };
        let Some(secondary) =
            client.assignments_mut().secondaries_mut().and_then(|secondaries| secondaries.of_group(group))
        else {
            return true;
        };
        let has_room = secondary.begin_call(call);
        if client.assignments().have_too_many_calls(calls_max) {
            client.pauses_mut().add_reason(PauseReason::PendingCalls);
        }
        has_room
    }

    /// Ends the secondary in the group of a new primary. Returns `false` while its calls are running.
    pub(crate) fn leave_secondary_of(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
    ) -> bool {
        let is_idle = core.secondary_mut(slot, group).map(|secondary| secondary.is_idle());
        if is_idle == Some(true) {
            self.end_secondary(core, reassignment, slot, group, &CloseReason::on_request(Cause::Ordered, None));
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
