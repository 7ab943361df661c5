//! Assignment of app servers to the side homes of clients: at the first message for a group, after a loss, by a
//! hand-over.
//!
//! ```text
//!  message for a group ──► side home? ─┬─ open, opening ──► goes up there
//!                                      ├─ none, or lost ──► app server of the group? ─ yes ──► opened there, goes up
//!                                      │                       └─ no ──► waits, client not read ── --hold-timeout ──┐
//!                                      └─ given up, refused ──► error to its caller ◄───────────────────────────────┘
//! ```
//!
//! What an app server had taken is never given to another one, as with homes.

use std::mem;
use std::sync::Arc;

use bytestring::ByteString;
use indexmap::IndexSet;
use tracing::{debug, warn};
use trunkline_protocol::hub::{CallScan, HandshakeRequest, HandshakeResponse};
use trunkline_protocol::manifest::ITEMS_HEADER;
use trunkline_protocol::service::{FlowOperation, ServiceMessage, header};
use trunkline_protocol::wire::RESTORES_HEADER;

use super::close_reason::CloseReason;
use super::command::LinkLoss;
use super::connection::{Client, LetGo, PauseReason, SideHome, SideHomes, SideStage, Status};
use super::content::{Content, DATA_TYPE_HANDSHAKE};
use super::delivery::Flush;
use super::history::short;
use super::reassignment::{Reassignment, moved_to};
use super::shard_core::{CALL_LOST, CALL_UNFINISHED, ShardCore};
use super::slot::Slot;
use crate::routing::Ruleset;
use crate::upstream::{AppServerId, HubIndex, LinkHandle};

/// Client connections of a shard that have side homes.
#[derive(Debug, Default)]
pub(crate) struct SidedClients {
    all: IndexSet<Slot>,
    /// Clients with a side home that has no app server.
    waiting: IndexSet<Slot>,
    /// Rules by which the side homes were last looked through.
    rules: Option<Arc<Ruleset>>,
    /// Some side homes are not wanted any more, and end with their calls.
    are_ending: bool,
}

/// App server for a message of a group.
#[derive(Debug)]
pub(super) enum SideChoice {
    Ready(Arc<LinkHandle>),
    /// There is none yet: the client is not read until there is.
    Waits,
    /// There is none for its calls, for this reason.
    Fails(String),
}

impl SidedClients {
    /// Finds the app server for a message of a group, and opens the connection there if it is the first one.
    pub(super) fn side_for(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &Arc<str>,
    ) -> SideChoice {
        let now = core.tick;
        let Some(client) = core.connections.live_mut(slot) else { return SideChoice::Waits };
        if matches!(client.status, Status::Opening { .. }) {
            // Its home may still refuse it.
            client.pause(PauseReason::SideUnassigned);
            return SideChoice::Waits;
        }
        self.add_side(core, slot, group);
        let is_lost = |side: &mut SideHome| side.is_known_there() && side.link.is_closed();
        if core.side_mut(slot, group).is_some_and(is_lost) {
            // Its shard has not heard of it yet, but will.
            self.lose_side(core, slot, group);
        }
        self.assign_side(core, reassignment, slot, group);
        let Some(side) = core.side_mut(slot, group) else { return SideChoice::Waits };
        match &mut side.stage {
            SideStage::Opening | SideStage::Open => return SideChoice::Ready(side.link.clone()),
            SideStage::Refused => return SideChoice::Fails(refused(group)),
            SideStage::GivenUp => return SideChoice::Fails(given_up(group)),
            SideStage::Unassigned { waits_since } => waits_since.get_or_insert(now),
        };
        core.refresh_pauses(slot);
        SideChoice::Waits
    }

    /// Opens a connection beside its home, which has answered the hub handshake, at an app server of each group that
    /// takes methods of its hub. Where there is none, it is opened with the first call.
    pub(super) fn open_sides(
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
            self.assign_side(core, reassignment, slot, group);
        }
    }

    /// Adds a side home without an app server, unless the client has one of the group.
    fn add_side(&mut self, core: &mut ShardCore, slot: Slot, group: &Arc<str>) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let nowhere = LinkHandle::nowhere(client.home.hub());
        let sides = client.cold.sides.get_or_insert_default();
        if sides.of_group(group).is_none() {
            sides.add(SideHome::new(group.clone(), Arc::new(nowhere)));
            self.all.insert(slot);
        }
    }

    /// Gives a side home an app server of its group, if it has none and there is one.
    fn assign_side(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, slot: Slot, group: &str) {
        let Some(hub) = core.connections.live(slot).and_then(|client| core.hub_of(client)) else { return };
        while let Some(side) = core.side_mut(slot, group).filter(|side| side.wants_link())
            && let Some(link) = hub.choose_home_near(side.link.app(), group)
        {
            self.open_side(core, reassignment, slot, group, &link);
            if !link.is_closed() {
                break;
            }
            // Lost while it was chosen: its place in the pool is empty by now.
            self.lose_side(core, slot, group);
        }
        let is_waiting = core.side_mut(slot, group).is_some_and(|side| side.wants_link());
        if is_waiting {
            self.waiting.insert(slot);
        }
        core.refresh_pauses(slot);
    }

    /// Opens a client connection at an app server of a side home's group.
    fn open_side(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
        link: &Arc<LinkHandle>,
    ) {
        let (now, hubs) = (core.tick, &core.context.shared.hubs);
        let Some(client) = core.connections.live_mut(slot) else { return };
        let (id, content) = (client.id.clone(), client.content);
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return };
        let (was_at, items) = (side.was_at, side.items.take());
        let from = was_at.map(|app| hubs.instance(app));
        let Some(mut open) = client.cold.opening_with(from.as_deref(), items.as_deref()) else { return };
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return };
        side.link = link.clone();
        side.is_let_go = None;
        // Where it was open before, no handshake is answered.
        side.stage = if was_at.is_some() { SideStage::Open } else { SideStage::Opening };
        if was_at != Some(link.app()) {
            // Only its own app server is listened to.
            side.calls.forget_failed();
        }
        // What a lost connection had is for the home.
        open.headers.retain(|(name, _)| *name != RESTORES_HEADER);
        link.send(&ServiceMessage::OpenConnection(open));
        if let Content::Hub(protocol) = content {
            link.send_data(&id, &HandshakeRequest { protocol, version: 1 }.encode(), DATA_TYPE_HANDSHAKE);
        }
        if let Some(was_at) = was_at.filter(|was_at| *was_at != link.app()) {
            reassignment.moved_away(link.hub(), (was_at, link.app()), &id, now);
            core.context.counters.rehomed.increment();
        }
    }

    /// Takes the app server from a side home: its session is over.
    fn lose_side(&mut self, core: &mut ShardCore, slot: Slot, group: &str) {
        self.leave_side(core, slot, group, CALL_LOST);
    }

    /// Answers the calls of a side home with an error; its app server has the connection no more.
    fn leave_side(&mut self, core: &mut ShardCore, slot: Slot, group: &str, error_of_calls: &'static str) {
        let Some(side) = core.side_mut(slot, group) else { return };
        if side.stage == SideStage::Open {
            side.was_at = Some(side.link.app());
        }
        side.leave();
        self.fail_side_calls(core, slot, group, error_of_calls);
    }

    fn fail_side_calls(&mut self, core: &mut ShardCore, slot: Slot, group: &str, text: &str) {
        let mode = core.mode(Flush::Deferred);
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return };
        let failed = side.calls.fail();
        core.context.counters.calls_failed.add(failed.len() as u64);
        client.cold.owed_errors.extend(failed.into_iter().map(|id| (id, ByteString::from(text))));
        core.send_owed_errors(slot, mode);
    }

    /// Learns that the session of a link is over: the side homes there get another one.
    pub(super) fn link_lost(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, loss: &LinkLoss) {
        for (slot, group) in self.sides_where(core, |side| side.link.id() == loss.link && side.is_known_there()) {
            if let Some(side) = core.side_mut(slot, &group).filter(|_| loss.is_goodbye) {
                side.is_let_go = Some(LetGo::Ended);
            }
            self.lose_side(core, slot, &group);
            self.assign_side(core, reassignment, slot, &group);
        }
    }

    /// Clients and groups of the side homes that this is true of.
    fn sides_where(&self, core: &ShardCore, is_wanted: impl Fn(&SideHome) -> bool) -> Vec<(Slot, Arc<str>)> {
        let mut found = Vec::new();
        for &slot in &self.all {
            let sides = core.connections.live(slot).and_then(|client| client.cold.sides.as_ref());
            let sides = sides.into_iter().flat_map(|sides| sides.iter()).filter(|side| is_wanted(side));
            found.extend(sides.map(|side| (slot, side.group.clone())));
        }
        found
    }

    /// Gives side homes without an app server the one whose link has opened.
    pub(super) fn link_opened(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment, link: &LinkHandle) {
        let refused_elsewhere = |side: &SideHome| side.stage == SideStage::Refused && side.link.app() != link.app();
        for (slot, group) in self.sides_where(core, refused_elsewhere) {
            if let Some(side) = core.side_mut(slot, &group) {
                side.leave();
            }
            self.waiting.insert(slot);
        }
        self.assign_waiting(core, reassignment);
    }

    fn assign_waiting(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        for slot in mem::take(&mut self.waiting) {
            let sides = core.connections.live(slot).and_then(|client| client.cold.sides.as_ref());
            let groups: Vec<_> =
                sides.into_iter().flat_map(|sides| sides.iter()).map(|side| side.group.clone()).collect();
            groups.iter().for_each(|group| self.assign_side(core, reassignment, slot, group));
        }
    }

    /// Looks for app servers again, gives up where none came in time, and ends side homes that no rule wants any more.
    pub(super) fn tick(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        if self.all.is_empty() {
            return;
        }
        self.assign_waiting(core, reassignment);
        let (now, timeout_s) = (core.tick, core.context.shared.settings.rehoming.hold_timeout_s);
        let is_overdue = |side: &SideHome| match side.stage {
            SideStage::Unassigned { waits_since: Some(since) } => now.saturating_sub(since) >= timeout_s,
            _ => false,
        };
        for (slot, group) in self.sides_where(core, is_overdue) {
            if let Some(side) = core.side_mut(slot, &group) {
                side.stage = SideStage::GivenUp;
            }
            debug!(slot, %group, "no app server of the group came in time");
            core.refresh_pauses(slot);
        }
        self.end_unwanted_sides(core, reassignment);
    }

    /// Ends side homes whose group takes no methods of their hub any more, once their calls have ended.
    fn end_unwanted_sides(&mut self, core: &mut ShardCore, reassignment: &mut Reassignment) {
        let rules = core.context.shared.hubs.rules();
        let are_same = self.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, &rules));
        if are_same && !self.are_ending {
            return;
        }
        (self.rules, self.are_ending) = (Some(rules), false);
        for (slot, group) in self.sides_where(core, |_| true) {
            let hub = core.connections.live(slot).and_then(|client| core.hub_of(client));
            let hub_rules = hub.and_then(|hub| hub.rules());
            if hub_rules.is_some_and(|rules| rules.message_groups().any(|known| *known == group)) {
                continue;
            }
            match core.side_mut(slot, &group).is_some_and(|side| side.is_idle() || side.wants_link()) {
                true => self.end_side(core, reassignment, slot, &group, &CloseReason::ordered(None)),
                false => self.are_ending = true,
            }
        }
    }

    /// Ends one side home of a client that stays.
    pub(super) fn end_side(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
        reason: &CloseReason,
    ) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(sides) = &mut client.cold.sides else { return };
        let side = sides.remove(group);
        if sides.are_none() {
            client.cold.sides = None;
            self.forget(slot);
        }
        if let Some(side) = side {
            self.tell_side_of_end(core, reassignment, slot, &side, reason);
        }
        core.refresh_pauses(slot);
    }

    /// Ends all side homes of a client that closes.
    pub(super) fn end_sides(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        sides: &SideHomes,
        reason: &CloseReason,
    ) {
        self.forget(slot);
        sides.iter().for_each(|side| self.tell_side_of_end(core, reassignment, slot, side, reason));
    }

    /// Tells the app server of a side home that the connection has ended there.
    fn tell_side_of_end(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        side: &SideHome,
        reason: &CloseReason,
    ) {
        // An app server that has become the home has the connection still.
        let home_of = |client: &&Client| client.home.app() != side.link.app();
        let Some(client) = core.connections.get(slot).filter(home_of) else { return };
        let is_told = side.is_known_there() && side.link.queue(&reason.notice_for(&side.link, &client.id));
        let was_open = side.stage == SideStage::Open || side.was_at.is_some();
        if was_open && side.is_let_go != Some(LetGo::Ended) {
            let group = core.context.shared.hubs.group(&side.group);
            reassignment.ended(client, (&side.link, group, side.is_let_go), reason, is_told, core.tick);
        }
    }

    /// Asks an app server that shuts down to hand the connections over whose side home it is.
    pub(super) fn app_stopping(&mut self, core: &mut ShardCore, hub: HubIndex, app: AppServerId) {
        let is_there = |side: &SideHome| side.link.hub() == hub && side.link.app() == app && side.is_known_there();
        for (slot, group) in self.sides_where(core, |side| is_there(side) && !side.is_leaving) {
            self.ask_to_hand_over(core, slot, &group);
        }
    }

    /// Stops reading a client, and asks the app server of a side home to hand it over, behind all that it has sent.
    pub(super) fn ask_to_hand_over(&mut self, core: &mut ShardCore, slot: Slot, group: &str) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return };
        (side.is_leaving, side.holds_input) = (true, true);
        side.link.send(&moved_to(&client.id, ""));
        core.refresh_pauses(slot);
    }

    /// Gives a side home that its app server hands over another one, with the items that the app gives along.
    pub(super) fn hand_side_over(
        &mut self,
        core: &mut ShardCore,
        reassignment: &mut Reassignment,
        slot: Slot,
        group: &str,
        headers: &[(ByteString, Vec<ByteString>)],
    ) {
        let Some(side) = core.side_mut(slot, group).filter(|side| side.is_leaving) else { return };
        side.is_let_go = Some(LetGo::HandedOver);
        side.items = header(headers, ITEMS_HEADER).map(|items| Box::from(&**items));
        self.leave_side(core, slot, group, CALL_UNFINISHED);
        self.assign_side(core, reassignment, slot, group);
    }

    /// Learns that the app server of a side home has refused the connection: its calls are errors.
    pub(super) fn side_refused(&mut self, core: &mut ShardCore, slot: Slot, group: &str, error: &str) {
        let Some(client) = core.connections.live_mut(slot) else { return };
        let connection = short(&client.id).to_owned();
        if let Some(side) = core.side_mut(slot, group) {
            side.leave();
            side.stage = SideStage::Refused;
        }
        if core.context.may_log() {
            warn!(connection, group, error, "an app server has refused a connection that calls its methods");
        }
        self.fail_side_calls(core, slot, group, &refused(group));
        core.refresh_pauses(slot);
    }
}

impl SidedClients {
    fn forget(&mut self, slot: Slot) {
        self.all.swap_remove(&slot);
        self.waiting.swap_remove(&slot);
    }

    /// Group of the side home that a client has at an app server.
    pub(super) fn side_group_at(&self, core: &ShardCore, slot: Slot, app: AppServerId) -> Option<Arc<str>> {
        let side = core.connections.get(slot)?.cold.sides.as_ref()?.at_app(app)?;
        Some(side.group.clone())
    }

    pub(super) fn apply_side_flow(&mut self, core: &mut ShardCore, slot: Slot, group: &str, operation: FlowOperation) {
        let Some(side) = core.side_mut(slot, group) else { return };
        match operation {
            FlowOperation::Pause => side.is_paused = true,
            FlowOperation::Resume => side.is_paused = false,
            FlowOperation::ReadOn => side.holds_input = false,
            FlowOperation::EndInput if side.is_leaving => return self.ask_to_hand_over(core, slot, group),
            FlowOperation::EndInput | FlowOperation::PauseAck | FlowOperation::Offline => return,
        }
        core.refresh_pauses(slot);
    }

    /// Takes note of a call that goes to a side home; `false` if the client has too many open uploads there.
    pub(super) fn begin_side_call(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        group: &str,
        call: &CallScan<'_>,
    ) -> bool {
        let calls_max = core.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = core.connections.live_mut(slot) else { return true };
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return true };
        let has_room = side.begin(call);
        if client.has_too_many_calls(calls_max) {
            client.pause(PauseReason::PendingCalls);
        }
        has_room
    }

    /// Ends the side home that a client has in the group that its home moves to; `false` while its calls run.
    pub(super) fn leave_side_of(
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
