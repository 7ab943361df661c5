//! App servers assigned to a client connection, from its first assignment to its close.
//!
//! ```text
//!  Assignments ─┬─ reassignment   opens, loses, waits, retries: primary and secondary assignments
//!               ├─ client probe   checks whether an app server still has a client
//!               ├─ secondary      start and end of secondary assignments, for some methods
//!               └─ closed ids, token expiries   end of a connection
//! ```
//!
//! Closing (`close_client`, `free`) is here too, because it ends the assignments.

pub(super) mod auth_refresh;
pub(super) mod client_probe;
pub(super) mod hand_over;
pub(super) mod pending_close_notice;
pub(super) mod reassignment;
pub(super) mod secondary_clients;
pub(super) mod token_expiry;

use std::mem;
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
use super::tap::TapEvent;
use crate::engine::transport::websocket::{Unframed, payload_bytes, unframe_whole};
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex, RouteChoice};
use crate::ground::metrics::Counters;
use client_probe::has_to_reconnect;

/// Ticks within which a client has to answer our close, as in the official server.
const CLOSE_TIMEOUT_TICKS: u32 = 5;

impl ShardState {
    /// Closes a client for an operator. Returns `false` if the client is not here.
    pub(crate) fn close_by_operator(&mut self, slot: Slot, id: &str, reason: Option<&str>) -> bool {
        if self.core.connections.find_shown(slot, id).is_none() {
            return false;
        }
        self.close_client(slot, &CloseReason::on_request(Cause::Operator, reason));
        true
    }

    /// Closes the connections of a user with revoked tokens. Returns their number.
    pub(crate) fn close_revoked(&mut self, user: &str) -> usize {
        let (hubs, to) = (self.core.context.shared.hubs.all(), Receivers::from(Audience::Users(vec![user.into()])));
        let mut slots: Vec<_> = hubs.iter().flat_map(|hub| self.core.connections.slots_of(hub.index(), &to)).collect();
        // A connection that was given away is closed by its new owner. If it has none, it ends here after a while, and
        // its app server is notified.
        slots.retain(|&slot| !self.core.ownership_of(slot).is_some_and(|ownership| ownership.is_given()));
        slots.iter().for_each(|&slot| {
            self.close_client(slot, &CloseReason::on_request(Cause::TokenRevoked, Some("its access token was revoked")))
        });
        slots.len()
    }

    /// Closes a client connection. Idempotent.
    ///
    /// Order: secondary assignments and taps end; the client leaves its sets and route, so that sends no longer reach
    /// it; app server and client are notified. The slot is freed when the socket has closed.
    pub(super) fn close_client(&mut self, slot: Slot, reason: &CloseReason) {
        if self.withdraw(slot) {
            return;
        }
        // A client that never opened has no state at an app server, so no other app server needs the notice.
        let is_known =
            self.core.connections.live(slot).is_some_and(|client| client.life().is_open() && has_successor(client));
        if let Some(secondaries) =
            self.core.connections.live_mut(slot).and_then(|client| client.assignments_mut().take_secondaries())
        {
            self.assignments.secondary_clients.end_secondaries(
                &mut self.core,
                &mut self.assignments.reassignment,
                slot,
                &secondaries,
                reason,
            );
        }
        self.core.tap_event(slot, &TapEvent::Closed(reason.cause, reason.detail.as_deref()));
        let mode = self.core.mode(Flush::Deferred);
        let Some(client) = self.core.connections.close_client(slot) else { return };
        self.core.context.record_close(client, reason);
        if !client.home().capabilities.names_callers {
            self.core.context.shared.client_results.connection_ended(&client.id);
        }
        self.assignments.closed_ids.note_closed(&client.id, client.traits().is_negotiated, self.core.tick);
        self.core.delivery.release_all(slot, client, mode);
        if let Some(notice) = reason.notice_to_app(client) {
            let let_go = client.assignments().home().released();
            let is_notified = let_go.is_none() && client.home().queue(&notice);
            if is_known && let_go != Some(ReleaseReason::Ended) {
                let at = (client.home(), client.cold().group().cloned(), let_go);
                self.assignments.reassignment.ended(client, at, reason, is_notified, self.core.tick);
            }
        }
        self.core.context.counters.away.follow(usize::from(client.is_away()), 0);
        self.core.delivery.drop_kept(client);
        if !client.wire().has_socket() {
            // No task serves the client and would free its slot.
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
        self.assignments.closed_ids.note_closed(id, is_negotiated, self.core.tick);
    }

    /// Frees the slot of a client connection with a closed socket. `cause` applies if the connection was not
    /// closed before.
    pub(super) fn free(&mut self, slot: Slot, cause: Cause) -> Option<Client> {
        self.close_client(slot, &CloseReason::by_client(cause));
        self.assignments.token_expiries.forget(slot);
        let mut client = self.core.connections.remove(slot)?;
        // Last chance to write what a task would have written, such as our answer to a close.
        let _: Poll<()> = self.core.delivery.poll_flush(&mut client, &mut Context::from_waker(Waker::noop()));
        self.core.delivery.budget.discard(&mut client);
        self.core.delivery.end_flush(slot);
        Some(client)
    }

    /// Writes deferred frames, closes slow clients, and enforces the total outbox budget.
    pub(super) fn flush(&mut self) {
        self.core.delivery.flush_deferred(&mut self.core.connections);
        self.core.delivery.taps.settle(&self.core.connections);
        let slow = self.core.delivery.take_slow();
        slow.iter().for_each(|&slot| self.close_client(slot, &CloseReason::slow_client()));
        self.core.delivery.reuse(slow);
        for slot in mem::take(&mut self.core.evicted) {
            self.close_client(slot, &CloseReason::group_names_total());
        }
        let excess = self.core.delivery.budget.excess_bytes();
        if excess > 0 {
            free_outboxes(self, excess);
        }
    }

    /// Reassigns a client after the loss of its primary link, or closes it if that is impossible.
    pub(super) fn lose_home(&mut self, slot: Slot, cause: Cause) {
        if self.withdraw(slot) {
            return;
        }
        self.core.stay_here(slot);
        let Some(client) = self.core.connections.live(slot) else { return };
        if has_to_reconnect(client, self.core.tick) {
            return self.close_client(slot, &CloseReason::reconnect(Cause::NoAppServer));
        }
        let pool = || self.core.context.shared.hubs.pool_of(client.home());
        let keeps_app = || pool().is_some_and(|pool| pool.choose_home().is_some());
        let is_handed_over = client.assignments().home().released() == Some(ReleaseReason::HandedOver);
        let outlives_home = client.can_move() || (is_handed_over && client.can_be_handed_over());
        if !outlives_home || (client.cold().origin().is_bound && !keeps_app()) {
            return self.close_client(slot, &CloseReason::home_lost(cause));
        }
        self.reassign(slot, &Role::Home, CALL_LOST);
    }

    /// Detaches a client from its app server in this role, and assigns another one as soon as one is available.
    pub(super) fn reassign(&mut self, slot: Slot, role: &Role, error_of_calls: &str) {
        self.core.leave(slot, role, error_of_calls);
        if *role == Role::Home {
            self.core.refresh_group(slot);
        }
        self.assignments.reassignment.assign_or_wait(&mut self.core, slot, role);
    }

    /// Assigns this link to a client that its app server gives up.
    pub(super) fn reassign_to(&mut self, slot: Slot, home: &HomeLink) {
        self.core.leave(slot, &Role::Home, CALL_UNFINISHED);
        if !self.assignments.reassignment.open_at_target(&mut self.core, slot, &Role::Home, home) {
            self.assignments.reassignment.assign_or_wait(&mut self.core, slot, &Role::Home);
        }
    }

    pub(super) fn handed_over(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        self.assignments.reassignment.handed_over(hub, app, id);
        self.assignments.reassignment.send_close_notices(&self.core.context.shared.hubs, self.core.tick);
    }

    /// Closes a leaving client after the reply to its last call, once half of its time has passed.
    pub(super) fn leave_behind_answer(&mut self, slot: Slot) {
        if let Some(client) = self.core.connections.live(slot)
            && let Some(LeaveStage::BehindAnswer(cause)) = client.life().leaving()
            && !self.core.is_busy(client)
        {
            self.close_client(slot, &CloseReason::of_move(cause));
        }
    }

    /// Delivers bytes from a secondary. Its handshake response is dropped, because the client has one already.
    pub(super) fn apply_secondary_data(&mut self, slot: Slot, role: &Role, payload: &[u8], mode: BatchMode) {
        let calls_max = self.core.context.shared.settings.rehoming.pending_calls_max;
        let Role::Secondary(group) = role else { return };
        let Some(secondary) = self.core.secondary_mut(slot, group) else { return };
        let payload = match secondary.answer_handshake(payload) {
            Ok(rest) => rest,
            Err(error) => {
                return self.assignments.secondary_clients.secondary_refused(&mut self.core, slot, group, &error);
            }
        };
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        if let Some(frame) =
            client.frame_data(role, payload, RawKind::Binary, calls_max, (mode.now, &*self.core.context.counters))
        {
            self.core.delivery.put_counted(slot, client, (&frame, None), mode);
        }
        self.leave_behind_answer(slot);
    }

    pub(super) fn remove_silently(&mut self, slot: Slot) {
        self.core.tap_event(slot, &TapEvent::Moved);
        let Some(client) = self.core.connections.close_client(slot) else { return };
        self.core.context.record_moved_out(client);
        self.core.context.counters.away.follow(usize::from(client.is_away()), 0);
        self.core.delivery.drop_kept(client);
        // The client's token must not open another connection here, nor elsewhere with this node's permission.
        let age_us = self.core.context.now_us().saturating_sub(client.cold().origin().opened_us);
        self.assignments.closed_ids.move_away(&client.id, age_us / 1_000_000, self.core.tick);
        self.assignments.token_expiries.forget(slot);
        self.core.connections.remove(slot);
    }

    /// Removes a connection that has not arrived yet, or that another node owns, without a notice. Returns
    /// whether it did.
    pub(super) fn withdraw(&mut self, slot: Slot) -> bool {
        let now = self.core.tick;
        let Some(ownership) = self.core.ownership_of(slot) else { return false };
        let is_arriving = ownership.is_arriving();
        // After its deadline, the node that took the connection counts as dead, and the app server is notified of the
        // close.
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
        self.remove_silently(slot);
        true
    }

    /// Reassigns a client that only waits for its calls to end.
    pub(super) fn reassign_if_ready(&mut self, slot: Slot) {
        let Some(client) = self.core.connections.get(slot) else { return };
        let results = &self.core.context.shared.client_results;
        let is_idle = || {
            !client.cold().stay().is_moving()
                && !client.assignments().home().calls().are_pending()
                && !results.is_waiting_for(&client.id)
        };
        if client.assignments().home().is_leaving() && !client.home().capabilities.confirms_hand_over && is_idle() {
            self.reassign_elsewhere(slot);
        }
    }

    /// Reassigns a client to another app server if there is one.
    pub(super) fn reassign_elsewhere(&mut self, slot: Slot) {
        let Some(client) = self.core.connections.live(slot) else { return };
        let (hub, app) = (client.home().hub(), client.home().app);
        let Some(to) = other_app(&self.core, hub, app) else {
            return self.core.change_assignment(slot, &Role::Home, |home, _| home.stay());
        };
        let instance = self.core.context.shared.hubs.instance(to.app);
        client.home().send(&moved_to(&client.id, &instance));
        self.reassign_to(slot, &to);
    }

    /// Closes connections at the request of an app server, which may be their own or another.
    pub(super) fn close_many(&mut self, app: AppServerId, slots: &[Slot], reason: Option<&str>) {
        let [own, other] = [Cause::AppClosed, Cause::Ordered].map(|cause| CloseReason::requested_by_app(cause, reason));
        for &slot in slots {
            let is_own = self.core.connections.get(slot).is_some_and(|client| client.home().app == app);
            self.close_client(slot, if is_own { &own } else { &other });
        }
    }

    /// Delivers bytes to one connection. The first ones are the response to the hub handshake, if there was
    /// one.
    pub(super) fn apply_data(
        &mut self,
        slot: Slot,
        (payload, packed): (&[u8], Option<&Bytes>),
        kind: RawKind,
        mode: BatchMode,
    ) {
        let calls_max = self.core.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        if client.assignments().home().is_leaving() && take_goodbye(self, slot, payload) {
            return;
        }
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        let is_handshake = client.life_mut().answered();
        let Some(frame) =
            client.frame_data(&Role::Home, payload, kind, calls_max, (mode.now, &*self.core.context.counters))
        else {
            return;
        };
        if is_handshake {
            self.core.context.record_app_handshake(client);
            self.core.delivery.put(slot, client, (&frame).into(), mode);
            if let Some(resumption) = client.cold_mut().resumption_mut() {
                resumption.ownership_mut().hold();
            }
            self.core.send_backlog(slot, mode);
            self.assignments.secondary_clients.open_secondaries(
                &mut self.core,
                &mut self.assignments.reassignment,
                slot,
                payload,
            );
            if let Some(client) = self.core.connections.live_mut(slot) {
                client.refresh_pauses(self.core.tick);
            }
            return;
        }
        // Without late replies, the frame has another payload.
        let packed = packed.filter(|_| payload_bytes(&frame) == payload.len());
        self.core.delivery.put_counted(slot, client, (&frame, packed), mode);
        let leaves = client.life().leaving().is_some();
        if client.assignments().home().is_leaving() {
            self.reassign_if_ready(slot);
        }
        if leaves {
            self.leave_behind_answer(slot);
        }
    }

    /// Records that a back end has answered calls of these clients by ending a stream.
    pub(super) fn note_answers(&mut self, hub: HubIndex, ids: &[ByteString], message: &Framed) {
        let (calls_max, now) = (self.core.context.shared.settings.rehoming.pending_calls_max, self.core.tick);
        for id in ids {
            let Some(slot) = self.core.connections.find(hub, id) else { continue };
            let Some(client) = self.core.connections.live_mut(slot) else { continue };
            let Content::Hub(protocol) = client.content() else { continue };
            if client.assignments().home().calls().is_empty() {
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

/// Whether another app server has to be notified of the close.
fn has_successor(client: &Client) -> bool {
    client.can_move() || (client.can_be_handed_over() && client.assignments().home().is_leaving())
}

/// Closes clients until the outboxes are within the budget: of the app with the most bytes, the largest.
fn free_outboxes(state: &mut ShardState, excess: usize) {
    for slot in state.core.largest(state.core.connections.waiting(), excess) {
        match state.core.connections.get_mut(slot) {
            // Already closed, but the client does not read the close either.
            Some(client) if client.life().is_closed() => state.core.delivery.cut(client),
            _ => state.close_client(slot, &CloseReason::outbox_total()),
        }
    }
}

/// Handles the close message of a stopping app server as the start of a handover, and keeps it from the
/// client.
fn take_goodbye(state: &mut ShardState, slot: Slot, payload: &[u8]) -> bool {
    let Some(client) = state.core.connections.get(slot) else { return false };
    let Content::Hub(protocol) = client.content() else { return false };
    let is_goodbye = client.home().capabilities.closes_clients_on_stop && is_goodbye(protocol, payload);
    if is_goodbye {
        state.reassign_elsewhere(slot);
    }
    is_goodbye
}

pub(super) fn other_app(core: &ShardCore, hub: HubIndex, app: AppServerId) -> Option<HomeLink> {
    let hub = core.context.shared.hubs.at(hub)?;
    // Dialled-in app servers are in the default group.
    hub.choose_home_near(app, RouteChoice::group_name(None)).filter(|home| home.app != app)
}

impl super::connection::Client {
    /// Transport frame for bytes from an assigned app server, without late replies to failed calls; `None` if
    /// nothing is left.
    pub(super) fn frame_data(
        &mut self,
        role: &Role,
        payload: &[u8],
        kind: RawKind,
        calls_max: usize,
        (now, counters): (u32, &Counters),
    ) -> Option<Bytes> {
        let protocol = match self.content() {
            Content::Raw => return Some(raw_frame(kind, payload)),
            Content::Hub(protocol) => protocol,
        };
        let calls = self.assignments_mut().of_mut(role)?.calls_mut();
        if calls.is_empty() {
            return Some(frame_for(protocol, payload));
        }
        let (payload, errors) = calls.filter(protocol, payload);
        if errors > 0 {
            counters.hub(self.home().hub().get()).call_errors.add_alone(errors);
        }
        let frame = (!payload.is_empty()).then(|| frame_for(protocol, &payload));
        if self.pauses().contains(PauseReason::PendingCalls) && !self.assignments().have_too_many_calls(calls_max) {
            self.resume(PauseReason::PendingCalls, now);
        }
        frame
    }
}

#[cfg(test)]
mod tests;
