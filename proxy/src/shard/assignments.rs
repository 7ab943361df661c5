//! Assignments: which app servers a client connection has, from the first to its end.
//!
//! ```text
//!  Assignments ─┬─ reassignment   opens, loses, waits, tries again: homes and side homes alike
//!               ├─ client probe   asks an app server for a client that it may have still
//!               ├─ sided          side homes, for some methods: when one begins and ends
//!               ├─ mirrored       copies, for mirrors
//!               └─ closed ids, token expiries   its end
//! ```
//!
//! A connection ends here, whoever ends it: what it has at app servers goes with it.

pub(super) mod answer_diff;
pub(super) mod auth_refresh;
pub(super) mod client_probe;
pub(super) mod closed_id;
pub(super) mod closing_client;
pub(super) mod hand_over;
pub(super) mod mirror;
pub(super) mod reassignment;
pub(super) mod side_assignment;
pub(super) mod token_expiry;
pub(super) mod unheard_end;

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::RawKind;

use super::close_reason::CloseReason;
use super::command::{Audience, PendingAck, Receivers};
use super::connection::{Client, LeaveStage, LetGo, PauseReason, Role, Status, moved_to};
use super::content::Content;
use super::delivery::framed::{Framed, frame_for, is_goodbye, raw_frame};
use super::delivery::outbox_budget::largest;
use super::delivery::{BatchMode, Flush};
use super::shard_context::ShardContext;
use super::shard_core::{CALL_LOST, CALL_UNFINISHED, ShardCore};
use super::slot::Slot;
use crate::clock::unix_seconds;
use crate::net::socket::Socket;
use crate::transport::websocket::{Unframed, unframe_whole};
use crate::upstream::{AppServerId, HomeLink, HubIndex, RouteChoice};
use closed_id::ClosedIds;
use closing_client::ClosingClients;
use mirror::MirroredConnections;
use reassignment::Reassignment;
use side_assignment::SidedClients;
use token_expiry::TokenExpiries;

/// App servers of the client connections of one shard.
#[derive(Debug)]
pub(crate) struct Assignments {
    pub(super) reassignment: Reassignment,
    /// Client connections that have several app servers.
    pub(crate) sided: SidedClients,
    /// Client connections that have copies for mirrors.
    pub(crate) mirrored: MirroredConnections,
    pub(super) closed_ids: ClosedIds,
    closing: ClosingClients,
    pub(super) token_expiries: TokenExpiries,
}

impl Assignments {
    pub(super) fn new(context: &ShardContext) -> Self {
        let settings = &context.shared.settings;
        let (window_ms, hold_s) = (settings.links.resume_window_ms, settings.rehoming.hold_timeout_s);
        Self {
            reassignment: Reassignment::new(window_ms, hold_s, context.counters.clone()),
            sided: SidedClients::default(),
            mirrored: MirroredConnections::default(),
            closed_ids: ClosedIds::new(context.shared.routes.clone()),
            closing: ClosingClients::default(),
            token_expiries: TokenExpiries::default(),
        }
    }

    /// Closes a client for an operator; `false` when it is not here.
    pub(crate) fn close_by_operator(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        id: &str,
        reason: Option<&str>,
    ) -> bool {
        if core.connections.find_shown(slot, id).is_none() {
            return false;
        }
        self.close(core, slot, &CloseReason::by_operator(reason));
        true
    }

    /// Closes the connections of a user whose tokens an operator has revoked; returns how many.
    pub(crate) fn close_revoked(&mut self, core: &mut ShardCore, user: &str) -> usize {
        let (hubs, to) = (core.context.shared.hubs.all(), Receivers::from(Audience::Users(vec![user.into()])));
        let mut slots: Vec<_> = hubs.iter().flat_map(|hub| core.connections.slots_of(hub.index(), &to)).collect();
        // One that was given away is closed by its new owner. If that has not taken it, it ends here in a while, and
        // its app server hears of it.
        slots.retain(|&slot| !core.ownership_of(slot).is_some_and(|ownership| ownership.is_given()));
        slots.iter().for_each(|&slot| self.close(core, slot, &CloseReason::token_revoked()));
        slots.len()
    }

    /// Closes a client connection; a second time is fine.
    ///
    /// It leaves its sets and its route first, so that nothing more is sent to it; then its app server and its client
    /// are told. Its slot is freed when its socket has ended.
    pub(super) fn close(&mut self, core: &mut ShardCore, slot: Slot, reason: &CloseReason) {
        if self.withdraw(core, slot) {
            return;
        }
        // Before that no app server has run anything for it.
        self.mirrored.end_mirrors(core, slot, reason.cause);
        let is_known = core.connections.live(slot).is_some_and(|client| client.is_open() && client.has_successor());
        if let Some(sides) = core.connections.live_mut(slot).and_then(|client| client.cold.sides.take()) {
            self.sided.end_sides(core, &mut self.reassignment, slot, &sides, reason);
        }
        let mode = core.mode(Flush::Deferred);
        let Some(client) = core.connections.close(slot) else { return };
        core.context.record_close(client, reason);
        core.delivery.watches.closed(slot, Some(reason.cause), reason.detail.as_deref());
        if !client.home.capabilities().names_callers {
            core.context.shared.client_results.connection_ended(&client.id);
        }
        self.closed_ids.close(&client.id, client.is_negotiated, core.tick);
        core.delivery.end_hold(slot, client, mode);
        if let Some(notice) = reason.notice_to_app(client) {
            let let_go = client.cold.assignment.let_go;
            let is_told = let_go.is_none() && client.home.queue(&notice);
            if is_known && let_go != Some(LetGo::Ended) {
                let at = (&client.home, client.cold.group.clone(), let_go);
                self.reassignment.ended(client, at, reason, is_told, core.tick);
            }
        }
        core.context.counters.away.follow(usize::from(client.is_away()), 0);
        core.delivery.forget_kept(client);
        if matches!(client.socket, Socket::Away) {
            // No task serves it, whose end would free the slot.
            self.token_expiries.forget(slot);
            core.connections.remove(slot);
            return;
        }
        self.closing.push(slot, client.serial, core.tick);
        if reason.is_slow_client() {
            return core.delivery.cut(client);
        }
        if client.transport == Transport::WebSockets && reason.is_end_of_socket() {
            return;
        }
        let frames = reason.frames(client.content, core.context.with_details(client));
        core.delivery.put_last(slot, client, frames);
    }

    /// Cuts the sockets of clients that do not answer our close.
    pub(super) fn cut_silent(&mut self, core: &mut ShardCore) {
        for (slot, serial) in self.closing.take_overdue(core.tick) {
            if let Some(client) = core.connections.get_current(slot, serial) {
                client.socket.cut();
            }
        }
    }

    /// Closes the clients whose tokens have expired.
    pub(super) fn close_expired(&mut self, core: &mut ShardCore) {
        if self.token_expiries.is_empty() {
            return;
        }
        let now_s = unix_seconds();
        while let Some(slot) = self.token_expiries.next_due(now_s) {
            self.close(core, slot, &CloseReason::token_expired());
        }
    }

    /// Closes the route of an id that never became a connection.
    pub(crate) fn close_id(&mut self, core: &mut ShardCore, id: &Rc<str>, is_negotiated: bool) {
        self.closed_ids.close(id, is_negotiated, core.tick);
    }

    /// Frees the slot of a client connection whose socket has ended, for this cause unless it was closed before.
    pub(super) fn free(&mut self, core: &mut ShardCore, slot: Slot, cause: Cause) -> Option<Client> {
        self.close(core, slot, &CloseReason::by_client(cause));
        self.token_expiries.forget(slot);
        let mut client = core.connections.remove(slot)?;
        // What only a task would have written leaves now or never: our answer to a close, for one.
        let _: Poll<()> = core.delivery.poll_flush(&mut client, &mut Context::from_waker(Waker::noop()));
        core.delivery.discard(&mut client);
        core.delivery.end_flush(slot);
        Some(client)
    }

    /// Writes deferred frames, closes slow clients, and keeps the budget of all outboxes.
    pub(super) fn flush(&mut self, core: &mut ShardCore) {
        core.delivery.flush_deferred(&mut core.connections);
        if core.delivery.watches.has_copies() {
            self.mirrored.copy_down(core);
        }
        core.delivery.watches.note_written(&core.connections);
        let slow = core.delivery.take_slow();
        slow.iter().for_each(|&slot| self.close(core, slot, &CloseReason::slow_client()));
        core.delivery.reuse(slow);
        let excess = core.delivery.excess_bytes();
        if excess > 0 {
            self.free_outboxes(core, excess);
        }
    }

    /// Closes the clients with the largest outboxes, until the excess is gone.
    fn free_outboxes(&mut self, core: &mut ShardCore, excess: usize) {
        for slot in largest(core.connections.waiting(), excess) {
            match core.connections.get_mut(slot) {
                // It was told, but does not read that either.
                Some(client) if client.is_closing() => core.delivery.cut(client),
                _ => self.close(core, slot, &CloseReason::outbox_total()),
            }
        }
    }

    /// Reassigns a client whose home is lost; one that can't be is closed.
    pub(super) fn lose_home(&mut self, core: &mut ShardCore, slot: Slot, cause: Cause) {
        if self.withdraw(core, slot) {
            return;
        }
        core.stay_here(slot);
        let Some(client) = core.connections.live(slot) else { return };
        if client.is_lost_for_too_long() {
            return self.close(core, slot, &CloseReason::no_app_server());
        }
        let pool = || core.context.shared.hubs.pool_of(&client.home);
        let keeps_app = || pool().is_some_and(|pool| pool.choose_home().is_some());
        if !client.outlives_home() || (client.cold.is_bound && !keeps_app()) {
            return self.close(core, slot, &CloseReason::home_lost(cause));
        }
        self.reassign(core, slot, &Role::Home, CALL_LOST);
    }

    /// Takes the app server from a client connection in a role, and gives it another one, as soon as there is one.
    pub(super) fn reassign(&mut self, core: &mut ShardCore, slot: Slot, role: &Role, error_of_calls: &str) {
        core.leave(slot, role, error_of_calls);
        if *role == Role::Home {
            core.refresh_group(slot);
        }
        self.reassignment.assign_or_wait(core, slot, role);
    }

    /// Gives a client connection that its app server gives up this home.
    pub(super) fn reassign_to(&mut self, core: &mut ShardCore, slot: Slot, home: &HomeLink) {
        core.leave(slot, &Role::Home, CALL_UNFINISHED);
        if !self.reassignment.open(core, slot, &Role::Home, home) {
            self.reassignment.assign_or_wait(core, slot, &Role::Home);
        }
    }

    /// Learns that an app server has handed a connection over that has ended here.
    pub(super) fn handed_over(&mut self, core: &mut ShardCore, hub: HubIndex, app: AppServerId, id: &str) {
        self.reassignment.handed_over(hub, app, id);
        self.reassignment.tell_ends(&core.context.shared.hubs, core.tick);
    }

    /// Tells a client to leave that was just answered, if that was its last call and it has waited for a while.
    pub(super) fn leave_behind_answer(&mut self, core: &mut ShardCore, slot: Slot) {
        if let Some(client) = core.connections.live(slot)
            && let LeaveStage::BehindAnswer(cause) = client.cold.leave
            && !core.is_busy(client)
        {
            self.close(core, slot, &CloseReason::of_move(cause));
        }
    }

    /// Delivers bytes of a side home; the answer to the hub handshake is not for the client, who has one.
    pub(super) fn apply_side_data(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        role: &Role,
        payload: &[u8],
        mode: BatchMode,
    ) {
        let calls_max = core.context.shared.settings.rehoming.pending_calls_max;
        let Role::Side(group) = role else { return };
        let Some(side) = core.side_mut(slot, group) else { return };
        let payload = match side.answer_handshake(payload) {
            Ok(rest) => rest,
            Err(error) => return self.sided.side_refused(core, slot, group, &error),
        };
        self.mirrored.compare_down(core, slot, payload);
        let Some(client) = core.connections.live_mut(slot) else { return };
        if let Some(frame) = client.frame_data(role, payload, RawKind::Binary, calls_max, mode.now) {
            core.delivery.put_counted(slot, client, &frame, mode);
        }
        self.leave_behind_answer(core, slot);
    }

    pub(super) fn forget_silently(&mut self, core: &mut ShardCore, slot: Slot) {
        self.mirrored.end_mirrors(core, slot, Cause::ClientClosed);
        let Some(client) = core.connections.close(slot) else { return };
        core.context.record_moved_out(client);
        core.context.counters.away.follow(usize::from(client.is_away()), 0);
        core.delivery.watches.closed(slot, None, None);
        core.delivery.forget_kept(client);
        // Its token must not begin another one here, or elsewhere by leave of this node.
        let age_us = core.context.now_us().saturating_sub(client.cold.opened_us);
        self.closed_ids.move_away(&client.id, age_us / 1_000_000, core.tick);
        self.token_expiries.forget(slot);
        core.connections.remove(slot);
    }

    /// Forgets a connection that has not arrived, or that another node has by now, whatever is to become of it here.
    /// Returns whether it was such a one.
    pub(super) fn withdraw(&mut self, core: &mut ShardCore, slot: Slot) -> bool {
        let now = core.tick;
        let Some(ownership) = core.ownership_of(slot) else { return false };
        let is_arriving = ownership.is_arriving();
        // When its time is over the node that took it has died: then its app server is told of the end.
        let is_given = ownership.is_given() && ownership.absence().is_some_and(|absence| absence.until > now);
        let move_cause = match core.connections.live(slot).and_then(|client| client.cold.resumption.as_ref()) {
            Some(resumption) if is_arriving || is_given => resumption.move_cause,
            _ => return false,
        };
        if is_given {
            core.context.counters.moved_out.of(move_cause).increment();
        } else if let Some(client) = core.connections.live(slot) {
            core.context.record_arrival(client);
        }
        self.forget_silently(core, slot);
        true
    }

    /// Gives a client to another app server if it waits for nothing more than the end of its calls.
    pub(super) fn reassign_if_ready(&mut self, core: &mut ShardCore, slot: Slot) {
        let Some(client) = core.connections.get(slot) else { return };
        let results = &core.context.shared.client_results;
        let is_idle = || {
            client.cold.moving_to.is_none()
                && client.cold.assignment.calls.are_none()
                && !results.is_waiting_for(&client.id)
        };
        if client.cold.assignment.is_leaving && !client.home.capabilities().confirms_hand_over && is_idle() {
            self.reassign_elsewhere(core, slot);
        }
    }

    /// Takes the goodbye of an app server that stops for the beginning of a hand-over: the client is not told of it.
    pub(super) fn take_goodbye(&mut self, core: &mut ShardCore, slot: Slot, payload: &[u8]) -> bool {
        let Some(client) = core.connections.get(slot) else { return false };
        let Content::Hub(protocol) = client.content else { return false };
        let is_goodbye = client.home.capabilities().closes_clients_on_stop && is_goodbye(protocol, payload);
        if is_goodbye {
            self.reassign_elsewhere(core, slot);
        }
        is_goodbye
    }

    pub(super) fn reassign_elsewhere(&mut self, core: &mut ShardCore, slot: Slot) {
        let Some(client) = core.connections.live(slot) else { return };
        let (hub, app) = (client.home.hub(), client.home.app());
        let Some(to) = self.other_app(core, hub, app) else {
            return core.change_assignment(slot, &Role::Home, |home, _| home.stay());
        };
        let instance = core.context.shared.hubs.instance(to.app());
        client.home.send(&moved_to(&client.id, &instance));
        self.reassign_to(core, slot, &to);
    }

    pub(super) fn other_app(&self, core: &ShardCore, hub: HubIndex, app: AppServerId) -> Option<HomeLink> {
        let hub = core.context.shared.hubs.at(hub)?;
        // App servers that dial in are of the default group.
        hub.choose_home_near(app, RouteChoice::group_name(None)).filter(|home| home.app() != app)
    }

    /// Closes connections on the order of an app server, their own one or another.
    pub(super) fn close_many(&mut self, core: &mut ShardCore, app: AppServerId, slots: &[Slot], reason: Option<&str>) {
        let [own, other] = [Cause::AppClosed, Cause::Ordered].map(|cause| CloseReason::told_by_app(cause, reason));
        for &slot in slots {
            let is_own = core.connections.get(slot).is_some_and(|client| client.home.app() == app);
            self.close(core, slot, if is_own { &own } else { &other });
        }
    }

    /// Takes a hand-over of an app server that may have had a side home of a connection which has ended since.
    pub(super) fn late_hand_over(&mut self, core: &mut ShardCore, slot: Slot, app: AppServerId) {
        if let Some(client) = core.connections.get(slot).filter(|client| client.is_closing()) {
            let (hub, id) = (client.home.hub(), client.id.clone());
            self.handed_over(core, hub, app, &id);
        }
    }

    /// Gives a client that closes with its token another time for that.
    pub(super) fn refresh(&mut self, slot: Slot, expires_s: u64, ack: &PendingAck) {
        if self.token_expiries.of(slot).is_some() {
            self.token_expiries.set(slot, expires_s);
        }
        ack.found();
    }

    /// Delivers bytes to one connection; the first are the answer to its hub handshake, if it had one.
    pub(super) fn apply_data(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        payload: &[u8],
        kind: RawKind,
        mode: BatchMode,
    ) {
        let calls_max = core.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = core.connections.live_mut(slot) else { return };
        if client.cold.assignment.is_leaving && self.take_goodbye(core, slot, payload) {
            return;
        }
        let Some(client) = core.connections.live_mut(slot) else { return };
        let is_handshake = matches!(client.status, Status::Opening { .. });
        client.status = Status::Open;
        self.mirrored.compare_down(core, slot, payload);
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(frame) = client.frame_data(&Role::Home, payload, kind, calls_max, mode.now) else {
            return;
        };
        if is_handshake {
            core.context.record_app_handshake(client);
            core.delivery.put(slot, client, &frame, mode);
            if let Some(resumption) = client.cold.resumption.as_deref_mut() {
                resumption.ownership.hold();
            }
            core.send_owed_errors(slot, mode);
            self.sided.open_sides(core, &mut self.reassignment, slot, payload);
            if let Some(client) = core.connections.live_mut(slot) {
                client.refresh_pauses(core.tick);
            }
            return;
        }
        core.delivery.put_counted(slot, client, &frame, mode);
        let leaves = client.cold.leave != LeaveStage::Stays;
        if client.cold.assignment.is_leaving {
            self.reassign_if_ready(core, slot);
        }
        if leaves {
            self.leave_behind_answer(core, slot);
        }
    }

    /// Notes that calls of these clients are answered by a back end, which has sent the end of a stream.
    pub(super) fn note_answers(&mut self, core: &mut ShardCore, hub: HubIndex, ids: &[ByteString], message: &Framed) {
        let (calls_max, now) = (core.context.shared.settings.rehoming.pending_calls_max, core.tick);
        for id in ids {
            let Some(slot) = core.connections.find(hub, id) else { continue };
            let Some(client) = core.connections.live_mut(slot) else { continue };
            let Content::Hub(protocol) = client.content else { continue };
            if client.cold.assignment.calls.are_none() {
                continue;
            }
            if let Some(Unframed::Payload(payload)) = message.get(client.content).and_then(unframe_whole) {
                client.cold.assignment.calls.filter(protocol, &payload);
            }
            if client.pause_reasons().contains(PauseReason::PendingCalls) && !client.has_too_many_calls(calls_max) {
                client.resume(PauseReason::PendingCalls, now);
            }
            let (is_leaving, leaves) = (client.cold.assignment.is_leaving, client.cold.leave != LeaveStage::Stays);
            if is_leaving {
                self.reassign_if_ready(core, slot);
            }
            if leaves {
                self.leave_behind_answer(core, slot);
            }
        }
    }
}

impl super::connection::Client {
    /// Transport frame around bytes of an app server of it, without late answers to failed calls; `None` if nothing is
    /// left.
    pub(super) fn frame_data(
        &mut self,
        role: &Role,
        payload: &[u8],
        kind: RawKind,
        calls_max: usize,
        now: u32,
    ) -> Option<Bytes> {
        let protocol = match self.content {
            Content::Raw => return Some(raw_frame(kind, payload)),
            Content::Hub(protocol) => protocol,
        };
        let calls = &mut self.assignment_mut(role)?.calls;
        if calls.are_none() {
            return Some(frame_for(protocol, payload));
        }
        let payload = calls.filter(protocol, payload);
        let frame = (!payload.is_empty()).then(|| frame_for(protocol, &payload));
        if self.pause_reasons().contains(PauseReason::PendingCalls) && !self.has_too_many_calls(calls_max) {
            self.resume(PauseReason::PendingCalls, now);
        }
        frame
    }
}

#[cfg(test)]
mod tests;
