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
//! The end of a connection is here as well (`close`, `free`), because its
//! assignments end with it.

pub(super) mod answer_diff;
pub(super) mod auth_refresh;
pub(super) mod client_probe;
pub(super) mod closed_id;
pub(super) mod hand_over;
pub(super) mod mirror;
pub(super) mod moved_client;
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
use super::command::{Audience, Receivers};
use super::connection::{Client, LeaveStage, PauseReason, ReleaseReason, Role, moved_to};
use super::content::Content;
use super::delivery::framed::{Framed, frame_for, is_goodbye, raw_frame};
use super::delivery::{BatchMode, Flush};
use super::shard_core::{CALL_LOST, CALL_UNFINISHED, ShardCore};
use super::shard_state::ShardState;
use super::slot::Slot;
use crate::bounded::largest;
use crate::transport::websocket::{Unframed, unframe_whole};
use crate::upstream::{AppServerId, HomeLink, HubIndex, RouteChoice};
use client_probe::is_lost_for_too_long;
use mirror::copy_down;

/// Ticks that a client may take to answer our close; as the official server has it.
const CLOSE_TIMEOUT_TICKS: u32 = 5;

impl ShardState {
    /// Closes a client for an operator; `false` when it is not here.
    pub(crate) fn close_by_operator(&mut self, slot: Slot, id: &str, reason: Option<&str>) -> bool {
        if self.core.connections.find_shown(slot, id).is_none() {
            return false;
        }
        self.close(slot, &CloseReason::by_operator(reason));
        true
    }

    /// Closes the connections of a user whose tokens an operator has revoked; returns how many.
    pub(crate) fn close_revoked(&mut self, user: &str) -> usize {
        let (hubs, to) = (self.core.context.shared.hubs.all(), Receivers::from(Audience::Users(vec![user.into()])));
        let mut slots: Vec<_> = hubs.iter().flat_map(|hub| self.core.connections.slots_of(hub.index(), &to)).collect();
        // One that was given away is closed by its new owner. If that has not taken it, it ends here in a while, and
        // its app server hears of it.
        slots.retain(|&slot| !self.core.ownership_of(slot).is_some_and(|ownership| ownership.is_given()));
        slots.iter().for_each(|&slot| self.close(slot, &CloseReason::token_revoked()));
        slots.len()
    }

    /// Closes a client connection; a second time is fine.
    ///
    /// Copies and side homes end first; then the client leaves its sets and its route, so that nothing more is sent to
    /// it; then its app server and the client are notified. Its slot is freed when its socket has ended.
    pub(super) fn close(&mut self, slot: Slot, reason: &CloseReason) {
        if self.withdraw(slot) {
            return;
        }
        self.assignments.mirrored.end_mirrors(&mut self.core, slot, reason.cause);
        // A client that was never open has run nothing anywhere, so no other app server needs a notice of its end.
        let is_known =
            self.core.connections.live(slot).is_some_and(|client| client.life().is_open() && has_successor(client));
        if let Some(sides) =
            self.core.connections.live_mut(slot).and_then(|client| client.assignments_mut().take_sides())
        {
            self.assignments.sided.end_sides(&mut self.core, &mut self.assignments.reassignment, slot, &sides, reason);
        }
        let mode = self.core.mode(Flush::Deferred);
        let Some(client) = self.core.connections.close(slot) else { return };
        self.core.context.record_close(client, reason);
        self.core.delivery.watches.closed(slot, Some(reason.cause), reason.detail.as_deref());
        if !client.home().capabilities().names_callers {
            self.core.context.shared.client_results.connection_ended(client.id());
        }
        self.assignments.closed_ids.close(client.id(), client.traits().is_negotiated, self.core.tick);
        self.core.delivery.end_hold(slot, client, mode);
        if let Some(notice) = reason.notice_to_app(client) {
            let let_go = client.assignments().home().released();
            let is_told = let_go.is_none() && client.home().queue(&notice);
            if is_known && let_go != Some(ReleaseReason::Ended) {
                let at = (client.home(), client.cold().group().cloned(), let_go);
                self.assignments.reassignment.ended(client, at, reason, is_told, self.core.tick);
            }
        }
        self.core.context.counters.away.follow(usize::from(client.is_away()), 0);
        self.core.delivery.forget_kept(client);
        if !client.wire().has_socket() {
            // No task serves it, whose end would free the slot.
            self.assignments.token_expiries.forget(slot);
            self.core.connections.remove(slot);
            return;
        }
        let until = self.core.tick.saturating_add(CLOSE_TIMEOUT_TICKS);
        self.assignments.closing.push((slot, client.serial()), until);
        if reason.is_slow_client() {
            return self.core.delivery.cut(client);
        }
        if client.traits().transport == Transport::WebSockets && reason.is_end_of_socket() {
            return;
        }
        let frames = reason.frames(client.content(), self.core.context.with_details(client));
        self.core.delivery.put_last(slot, client, frames);
    }

    /// Closes the route of an id that never became a connection.
    pub(crate) fn close_id(&mut self, id: &Rc<str>, is_negotiated: bool) {
        self.assignments.closed_ids.close(id, is_negotiated, self.core.tick);
    }

    /// Frees the slot of a client connection whose socket has ended, for this cause unless it was closed before.
    pub(super) fn free(&mut self, slot: Slot, cause: Cause) -> Option<Client> {
        self.close(slot, &CloseReason::by_client(cause));
        self.assignments.token_expiries.forget(slot);
        let mut client = self.core.connections.remove(slot)?;
        // What only a task would have written leaves now or never: our answer to a close, for one.
        let _: Poll<()> = self.core.delivery.poll_flush(&mut client, &mut Context::from_waker(Waker::noop()));
        self.core.delivery.budget().discard(&mut client);
        self.core.delivery.end_flush(slot);
        Some(client)
    }

    /// Writes deferred frames, closes slow clients, and keeps the budget of all outboxes.
    pub(super) fn flush(&mut self) {
        self.core.delivery.flush_deferred(&mut self.core.connections);
        if self.core.delivery.watches.has_copies() {
            copy_down(&mut self.core.connections, self.core.delivery.watches.take_copies());
        }
        self.core.delivery.watches.note_written(&self.core.connections);
        let slow = self.core.delivery.take_slow();
        slow.iter().for_each(|&slot| self.close(slot, &CloseReason::slow_client()));
        self.core.delivery.reuse(slow);
        let excess = self.core.delivery.budget().excess_bytes();
        if excess > 0 {
            free_outboxes(self, excess);
        }
    }

    /// Reassigns a client whose home is lost; one that can't be is closed.
    pub(super) fn lose_home(&mut self, slot: Slot, cause: Cause) {
        if self.withdraw(slot) {
            return;
        }
        self.core.stay_here(slot);
        let Some(client) = self.core.connections.live(slot) else { return };
        if is_lost_for_too_long(client) {
            return self.close(slot, &CloseReason::no_app_server());
        }
        let pool = || self.core.context.shared.hubs.pool_of(client.home());
        let keeps_app = || pool().is_some_and(|pool| pool.choose_home().is_some());
        let is_handed_over = client.assignments().home().released() == Some(ReleaseReason::HandedOver);
        let outlives_home = client.can_move() || (is_handed_over && client.can_be_handed_over());
        if !outlives_home || (client.cold().origin().is_bound && !keeps_app()) {
            return self.close(slot, &CloseReason::home_lost(cause));
        }
        self.reassign(slot, &Role::Home, CALL_LOST);
    }

    /// Takes the app server from a client connection in a role, and gives it another one, as soon as there is one.
    pub(super) fn reassign(&mut self, slot: Slot, role: &Role, error_of_calls: &str) {
        self.core.leave(slot, role, error_of_calls);
        if *role == Role::Home {
            self.core.refresh_group(slot);
        }
        self.assignments.reassignment.assign_or_wait(&mut self.core, slot, role);
    }

    /// Gives a client connection that its app server gives up this home.
    pub(super) fn reassign_to(&mut self, slot: Slot, home: &HomeLink) {
        self.core.leave(slot, &Role::Home, CALL_UNFINISHED);
        if !self.assignments.reassignment.open(&mut self.core, slot, &Role::Home, home) {
            self.assignments.reassignment.assign_or_wait(&mut self.core, slot, &Role::Home);
        }
    }

    /// Learns that an app server has handed a connection over that has ended here.
    pub(super) fn handed_over(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        self.assignments.reassignment.handed_over(hub, app, id);
        self.assignments.reassignment.tell_ends(&self.core.context.shared.hubs, self.core.tick);
    }

    /// Closes a leaving client behind the answer to its last call, if half of its time is over.
    pub(super) fn leave_behind_answer(&mut self, slot: Slot) {
        if let Some(client) = self.core.connections.live(slot)
            && let Some(LeaveStage::BehindAnswer(cause)) = client.life().leaving()
            && !self.core.is_busy(client)
        {
            self.close(slot, &CloseReason::of_move(cause));
        }
    }

    /// Delivers bytes of a side home; the answer to the hub handshake is not for the client, who has one.
    pub(super) fn apply_side_data(&mut self, slot: Slot, role: &Role, payload: &[u8], mode: BatchMode) {
        let calls_max = self.core.context.shared.settings.rehoming.pending_calls_max;
        let Role::Side(group) = role else { return };
        let Some(side) = self.core.side_mut(slot, group) else { return };
        let payload = match side.answer_handshake(payload) {
            Ok(rest) => rest,
            Err(error) => return self.assignments.sided.side_refused(&mut self.core, slot, group, &error),
        };
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        self.assignments.mirrored.compare_down(&self.core.context, client, payload);
        if let Some(frame) = client.frame_data(role, payload, RawKind::Binary, calls_max, mode.now) {
            self.core.delivery.put_counted(slot, client, &frame, mode);
        }
        self.leave_behind_answer(slot);
    }

    pub(super) fn forget_silently(&mut self, slot: Slot) {
        self.assignments.mirrored.end_mirrors(&mut self.core, slot, Cause::ClientClosed);
        let Some(client) = self.core.connections.close(slot) else { return };
        self.core.context.record_moved_out(client);
        self.core.context.counters.away.follow(usize::from(client.is_away()), 0);
        self.core.delivery.watches.closed(slot, None, None);
        self.core.delivery.forget_kept(client);
        // Its token must not begin another one here, or elsewhere by leave of this node.
        let age_us = self.core.context.now_us().saturating_sub(client.cold().origin().opened_us);
        self.assignments.closed_ids.move_away(client.id(), age_us / 1_000_000, self.core.tick);
        self.assignments.token_expiries.forget(slot);
        self.core.connections.remove(slot);
    }

    /// Forgets a connection that has not arrived, or that another node has by now, whatever is to become of it here.
    /// Returns whether it was such a one.
    pub(super) fn withdraw(&mut self, slot: Slot) -> bool {
        let now = self.core.tick;
        let Some(ownership) = self.core.ownership_of(slot) else { return false };
        let is_arriving = ownership.is_arriving();
        // When its time is over the node that took it has died: then its app server is told of the end.
        let is_given = ownership.is_given() && ownership.absence().is_some_and(|absence| absence.until > now);
        let move_cause = match self.core.connections.live(slot).and_then(|client| client.cold().resumption()) {
            Some(resumption) if is_arriving || is_given => resumption.move_cause(),
            _ => return false,
        };
        if is_given {
            self.core.context.counters.moved_out.of(move_cause).increment();
        } else if let Some(client) = self.core.connections.live(slot) {
            self.core.context.record_arrival(client);
        }
        self.forget_silently(slot);
        true
    }

    /// Gives a client to another app server if it waits for nothing more than the end of its calls.
    pub(super) fn reassign_if_ready(&mut self, slot: Slot) {
        let Some(client) = self.core.connections.get(slot) else { return };
        let results = &self.core.context.shared.client_results;
        let is_idle = || {
            !client.cold().stay().is_moving()
                && client.assignments().home().calls().are_none()
                && !results.is_waiting_for(client.id())
        };
        if client.assignments().home().is_leaving() && !client.home().capabilities().confirms_hand_over && is_idle() {
            self.reassign_elsewhere(slot);
        }
    }

    /// Gives a client to another app server, or lets it stay where there is no other.
    pub(super) fn reassign_elsewhere(&mut self, slot: Slot) {
        let Some(client) = self.core.connections.live(slot) else { return };
        let (hub, app) = (client.home().hub(), client.home().app());
        let Some(to) = other_app(&self.core, hub, app) else {
            return self.core.change_assignment(slot, &Role::Home, |home, _| home.stay());
        };
        let instance = self.core.context.shared.hubs.instance(to.app());
        client.home().send(&moved_to(client.id(), &instance));
        self.reassign_to(slot, &to);
    }

    /// Closes connections on the order of an app server, their own one or another.
    pub(super) fn close_many(&mut self, app: AppServerId, slots: &[Slot], reason: Option<&str>) {
        let [own, other] = [Cause::AppClosed, Cause::Ordered].map(|cause| CloseReason::told_by_app(cause, reason));
        for &slot in slots {
            let is_own = self.core.connections.get(slot).is_some_and(|client| client.home().app() == app);
            self.close(slot, if is_own { &own } else { &other });
        }
    }

    /// Delivers bytes to one connection; the first are the answer to its hub handshake, if it had one.
    pub(super) fn apply_data(&mut self, slot: Slot, payload: &[u8], kind: RawKind, mode: BatchMode) {
        let calls_max = self.core.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        if client.assignments().home().is_leaving() && take_goodbye(self, slot, payload) {
            return;
        }
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        let is_handshake = client.life_mut().answered();
        self.assignments.mirrored.compare_down(&self.core.context, client, payload);
        let Some(frame) = client.frame_data(&Role::Home, payload, kind, calls_max, mode.now) else {
            return;
        };
        if is_handshake {
            self.core.context.record_app_handshake(client);
            self.core.delivery.put(slot, client, &frame, mode);
            if let Some(resumption) = client.cold_mut().resumption_mut() {
                resumption.ownership_mut().hold();
            }
            self.core.send_backlog(slot, mode);
            self.assignments.sided.open_sides(&mut self.core, &mut self.assignments.reassignment, slot, payload);
            if let Some(client) = self.core.connections.live_mut(slot) {
                client.refresh_pauses(self.core.tick);
            }
            return;
        }
        self.core.delivery.put_counted(slot, client, &frame, mode);
        let leaves = client.life().leaving().is_some();
        if client.assignments().home().is_leaving() {
            self.reassign_if_ready(slot);
        }
        if leaves {
            self.leave_behind_answer(slot);
        }
    }

    /// Notes that calls of these clients are answered by a back end, which has sent the end of a stream.
    pub(super) fn note_answers(&mut self, hub: HubIndex, ids: &[ByteString], message: &Framed) {
        let (calls_max, now) = (self.core.context.shared.settings.rehoming.pending_calls_max, self.core.tick);
        for id in ids {
            let Some(slot) = self.core.connections.find(hub, id) else { continue };
            let Some(client) = self.core.connections.live_mut(slot) else { continue };
            let Content::Hub(protocol) = client.content() else { continue };
            if client.assignments().home().calls().are_none() {
                continue;
            }
            if let Some(Unframed::Payload(payload)) = message.get(client.content()).and_then(unframe_whole) {
                client.assignments_mut().home_mut().calls_mut().filter(protocol, &payload);
            }
            if client.pauses().contains(PauseReason::PendingCalls)
                && !client.assignments().have_too_many_calls(calls_max)
            {
                client.resume(PauseReason::PendingCalls, now);
            }
            let (is_leaving, leaves) = (client.assignments().home().is_leaving(), client.life().leaving().is_some());
            if is_leaving {
                self.reassign_if_ready(slot);
            }
            if leaves {
                self.leave_behind_answer(slot);
            }
        }
    }
}

/// Whether another app server gets the end of a client that its own one does not get.
fn has_successor(client: &Client) -> bool {
    client.can_move() || (client.can_be_handed_over() && client.assignments().home().is_leaving())
}

/// Closes the clients with the largest outboxes, until the excess is gone.
fn free_outboxes(state: &mut ShardState, excess: usize) {
    for slot in largest(state.core.connections.waiting(), excess) {
        match state.core.connections.get_mut(slot) {
            // It was told, but does not read that either.
            Some(client) if client.life().is_closed() => state.core.delivery.cut(client),
            _ => state.close(slot, &CloseReason::outbox_total()),
        }
    }
}

/// Treats the close message of an app server that stops as the beginning of a hand-over, and keeps it from the client.
fn take_goodbye(state: &mut ShardState, slot: Slot, payload: &[u8]) -> bool {
    let Some(client) = state.core.connections.get(slot) else { return false };
    let Content::Hub(protocol) = client.content() else { return false };
    let is_goodbye = client.home().capabilities().closes_clients_on_stop && is_goodbye(protocol, payload);
    if is_goodbye {
        state.reassign_elsewhere(slot);
    }
    is_goodbye
}

pub(super) fn other_app(core: &ShardCore, hub: HubIndex, app: AppServerId) -> Option<HomeLink> {
    let hub = core.context.shared.hubs.at(hub)?;
    // App servers that dial in are of the default group.
    hub.choose_home_near(app, RouteChoice::group_name(None)).filter(|home| home.app() != app)
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
        let protocol = match self.content() {
            Content::Raw => return Some(raw_frame(kind, payload)),
            Content::Hub(protocol) => protocol,
        };
        let calls = self.assignments_mut().of_mut(role)?.calls_mut();
        if calls.are_none() {
            return Some(frame_for(protocol, payload));
        }
        let payload = calls.filter(protocol, payload);
        let frame = (!payload.is_empty()).then(|| frame_for(protocol, &payload));
        if self.pauses().contains(PauseReason::PendingCalls) && !self.assignments().have_too_many_calls(calls_max) {
            self.resume(PauseReason::PendingCalls, now);
        }
        frame
    }
}

#[cfg(test)]
mod tests;
