//! Shard events: a client opens, a second passes, a link opens or closes, an app server stops.

use std::collections::HashSet;
use std::rc::Rc;

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::ITEMS_HEADER;
use trunkline_protocol::service::{FlowOperation, header};

use super::assignments::client_probe::{cancel_failed_calls, ends_by_answer, lose_home_link};
use super::assignments::hand_over::{
    end_late_hand_overs, end_move, moving_link_lost, note_move, reassign_all, reassign_all_to, rebalance_links,
};
use super::close_reason::CloseReason;
use super::command::{LinkLoss, MembershipChange};
use super::connection::{Client, Role, flow, moved_to};
use super::drain::reroute::{owe, reroute, reroute_unassigned};
use super::drain::server_rebalance::take_rebalance_target;
use super::moving::reconnect::{check_keep_alives, send_acknowledgements};
use super::moving::{end_late_moves, move_paused};
use super::shard_core::{CALL_UNFINISHED, ShardCore};
use super::shard_state::{ShardState, ShardTask};
use super::shared::Shared;
use super::shared::route_table::Location;
use super::slot::Slot;
use super::tap::TapView;
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex, LinkId};
use crate::ground::clock::unix_seconds;
use crate::ground::metrics::Limit;

/// Closes the connections with these ids, whose heads were evicted from the budget of heads.
pub(crate) fn close_with_heads(shared: &Shared, connection_ids: Vec<ByteString>) {
    for id in connection_ids {
        let Some(Location { shard, slot, .. }) = shared.routes.find(&id) else { continue };
        let close = move |state: &mut ShardState| {
            if state.core.connections.live(slot).is_some_and(|client| *client.id == *id) {
                state.close_client(slot, &CloseReason::heads_total());
            }
        };
        if let Some(shard) = shared.shards().get(usize::from(shard)) {
            shard.post(close);
        }
    }
}

impl ShardState {
    /// Adds a client connection and makes it reachable. `expires_s` closes it with its token.
    pub(crate) fn open_client(&mut self, client: Client, user: Option<&str>, expires_s: Option<u64>) -> Slot {
        let serial = client.serial();
        self.core.context.record_open(&client);
        let hub = client.home().hub();
        let slot = self.core.connections.insert(client, user);
        if let Some(user) = user.filter(|_| !self.core.context.shared.user_groups.is_empty()) {
            for group in self.core.context.shared.kept_groups_of(hub, user) {
                self.core.change_groups(slot, &MembershipChange::Join(group), None);
            }
        }
        self.moves.keep_alive.schedule(slot, serial, self.core.tick, self.core.tick + 1);
        if let Some(expires_s) = expires_s {
            self.assignments.token_expiries.set(slot, expires_s);
        }
        slot
    }

    /// Advances the shard by one second.
    pub(super) fn advance(&mut self) {
        self.core.tick += 1;
        self.core.context.counters.ticks.increment();
        self.core.end_client_lines();
        check_keep_alives(self);
        cut_silent(self);
        close_stalled(self);
        for slot in self.core.unfinished.advance(&self.core.connections, self.core.tick) {
            self.core.context.counters.limit(Limit::MessageTime).increment();
            self.close_client(slot, &CloseReason::message_timeout());
        }
        self.keep_unfinished_budget();
        send_acknowledgements(self);
        self.assignments.reassignment.evict_old_moves(self.core.tick);
        end_late_hand_overs(self);
        end_late_moves(self);
        self.server_rebalance.remove_departed(&mut self.core.connections);
        if self.core.context.index == 0 {
            self.core.context.shared.turns.tick();
            self.core.context.shared.client_results.expire();
            self.core.context.shared.expire_user_groups();
        }
        self.core.tick_follows();
        retry_unassigned(self);
        self.assignments.secondary_clients.tick(&mut self.core, &mut self.assignments.reassignment);
        if self.reroute_due {
            reroute(self);
        }
        self.assignments.reassignment.send_close_notices(&self.core.context.shared.hubs, self.core.tick);
        close_absent(self);
        close_expired(self);
        self.assignments.closed_ids.evict_expired(self.core.tick);
        self.core.connections.give_back_room();
        self.core.context.shared.evict_old_closes(self.core.context.index);
        let ShardCore { context, connections, delivery, tick, .. } = &mut self.core;
        delivery.taps.tick(&TapView { context, connections, now: *tick });
        let (groups, users) = self.core.connections.sets().counts();
        self.core.context.counters.groups.set(groups);
        self.core.context.counters.users.set(users);
        self.core.context.counters.homeless.set(self.assignments.reassignment.unassigned().count());
    }

    /// Closes clients while unfinished messages are over the budget: of the app with the most bytes, the largest.
    pub(crate) fn keep_unfinished_budget(&mut self) {
        let excess = self.core.unfinished.excess_bytes();
        if excess == 0 {
            return;
        }
        for slot in self.core.largest(self.core.unfinished.sizes(&self.core.connections), excess) {
            match self.core.connections.get_mut(slot) {
                // Already closed, but its socket is still open; cutting the socket frees the memory.
                Some(client) if client.life().is_closed() => client.wire().socket().cut(),
                _ => self.close_client(slot, &CloseReason::unfinished_total()),
            }
        }
    }

    /// Reassigns all clients of a link with a closed session.
    pub(super) fn lose_homes(&mut self, loss: &LinkLoss) {
        self.assignments.reassignment.link_lost(loss);
        self.feeds.link_lost(&mut self.core, loss);
        self.assignments.secondary_clients.link_lost(&mut self.core, &mut self.assignments.reassignment, loss);
        moving_link_lost(self, loss);
        for slot in self.core.connections.at_home(loss.link) {
            if let Some(client) = self.core.connections.live_mut(slot).filter(|_| loss.is_goodbye) {
                lose_home_link(client, loss, self.core.tick);
            }
            self.lose_home(slot, loss.cause);
        }
        if loss.noticed_within_s > 0 {
            // Without its last link the app server is gone, and its clients stop waiting for it.
            self.assignments.reassignment.retry(&mut self.core);
        }
        self.assignments.reassignment.send_close_notices(&self.core.context.shared.hubs, self.core.tick);
    }

    /// Handles a handover by an app server: reassigns the client in this role, and keeps the app's items for
    /// the next one.
    pub(super) fn hand_over(&mut self, slot: Slot, role: &Role, headers: &[(ByteString, Vec<ByteString>)]) {
        let Some(client) = self.core.connections.get_mut(slot) else { return };
        if client.life().is_closed() {
            let (hub, app, id) = (client.home().hub(), client.home().app, client.id.clone());
            return self.assignments.reassignment.handed_over(hub, app, &id);
        }
        let items = header(headers, ITEMS_HEADER).map(|items| Box::from(&**items));
        if !client.assignments_mut().of_mut(role).is_some_and(|assignment| assignment.hand_over(items)) {
            return;
        }
        match (*role == Role::Home).then(|| take_rebalance_target(self, slot)).flatten() {
            Some(home) => self.reassign_to(slot, &home),
            None => self.reassign(slot, role, CALL_UNFINISHED),
        }
    }

    /// Assigns waiting clients to the new link, and reports to its app server which of its former clients have
    /// moved.
    pub(super) fn link_opened(&mut self, link: &HomeLink) {
        self.assignments.reassignment.retry(&mut self.core);
        let hubs = &self.core.context.shared.hubs;
        for (id, to) in self.assignments.reassignment.take_moved_away(link.hub(), link.app) {
            let client = self.core.connections.find(link.hub(), &id).and_then(|slot| self.core.connections.get(slot));
            // The client may have returned, just now or before.
            if client.is_none_or(|client| client.role_of(link.app).is_none()) {
                // Current or last app server. An empty name would request a handover.
                let at = client.map_or(to, |client| client.home().app);
                link.send(&moved_to(&id, &hubs.instance(at)));
            }
        }
        self.assignments.reassignment.send_close_notices(&self.core.context.shared.hubs, self.core.tick);
        reassign_all_to(self, link);
        rebalance_links(self, link);
        self.assignments.secondary_clients.link_opened(&mut self.core, &mut self.assignments.reassignment, link);
        for (feed, has_changed) in self.feeds.link_opened(&mut self.core, link) {
            self.start(ShardTask::FlushFeed(feed, has_changed));
        }
        owe(self);
    }

    /// Pauses the clients of a stopping app server and requests the handover of each client once its calls
    /// have ended.
    pub(super) fn app_shutting_down(&mut self, hub: HubIndex, app: AppServerId) {
        let ShardCore { context, connections, delivery, tick, .. } = &mut self.core;
        delivery.taps.app_stopping(&TapView { context, connections, now: *tick }, hub, app);
        self.feeds.app_stopping(hub, app);
        if self.core.context.shared.hubs.at(hub).is_some_and(|hub| !hub.capabilities().confirms_hand_over) {
            return reassign_all(self, hub, app);
        }
        self.assignments.secondary_clients.app_stopping(&mut self.core, hub, app);
        self.core.connections.at_app(hub, app).into_iter().for_each(|slot| self.core.ask_for(slot, &Role::Home));
    }

    /// Primary app servers of all clients here, and hubs with unreported closes.
    pub(crate) fn used_entries(&self, hubs: &[HubIndex]) -> (HashSet<(HubIndex, AppServerId)>, Vec<HubIndex>) {
        let has_ends = |hub: &HubIndex| self.assignments.reassignment.has_ends_of(*hub);
        (self.core.homes_of_clients().collect(), hubs.iter().copied().filter(has_ends).collect())
    }

    /// The app server has paused direct data over the primary link: completes a move to another link, or continues a
    /// move to another node.
    pub(super) fn pause_acknowledged(&mut self, slot: Slot, by: LinkId) {
        let now = self.core.tick;
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        if ends_by_answer(client, now) {
            // The app server has two connections with this id, and only one can be used.
            return self.close_client(slot, &CloseReason::reconnect(Cause::LinkLost));
        }
        if client.home().id != by {
            return;
        }
        let limit_bytes = self.core.delivery.budget.limit_bytes;
        if self.core.delivery.slow.pause_acknowledged(slot, client, by, limit_bytes) {
            return;
        }
        if !client.cold().stay().is_moving() {
            if !client.is_in_transit() {
                // Late acknowledgement of a finished move; without a resume the client would stay paused.
                client.home().send(&flow(&client.id, FlowOperation::Resume));
            }
            return move_paused(self, slot);
        }
        cancel_failed_calls(client);
        let Some(to) = client.cold_mut().stay_mut().acknowledged() else { return };
        // If the new link is lost already, the client stays at the old one.
        let to = if to.is_open() { to } else { client.home().clone() };
        to.send(&flow(&client.id, FlowOperation::Resume));
        if to.id != by {
            note_move(self, slot, by);
        }
        self.core.connections.set_home(slot, &to);
        self.core.context.counters.dial_in.moved.increment();
        end_move(self, slot);
    }
}

/// Retries assignments, because app servers may have been full, and closes clients that have waited too long.
fn retry_unassigned(state: &mut ShardState) {
    reroute_unassigned(state);
    state.assignments.reassignment.open_unanswered(&mut state.core);
    state.assignments.reassignment.retry(&mut state.core);
    let timeout_s = state.core.context.shared.settings.rehoming.hold_timeout_s;
    for slot in state.assignments.reassignment.take_overdue(&mut state.core, timeout_s) {
        state.close_client(slot, &CloseReason::reconnect(Cause::NoAppServer));
    }
}

/// Closes HTTP connections of clients that have stopped sending requests. One shard does this for the whole
/// node.
fn close_absent(state: &mut ShardState) {
    if state.core.context.index != 0 {
        return;
    }
    let shared = state.core.context.shared.clone();
    for outer in shared.http_transports.sweep(shared.settings.http_transports.disconnect_timeout_s) {
        // The others end with their pipes.
        if outer.take_inner_half().is_some() {
            state.close_id(&Rc::from(&*outer.id), true);
        }
    }
}

/// Cuts the sockets of clients that don't answer our close.
fn cut_silent(state: &mut ShardState) {
    for (slot, serial) in state.assignments.closing.take_due(state.core.tick) {
        if let Some(client) = state.core.connections.get_current(slot, serial) {
            client.wire().socket().cut();
        }
    }
}

/// Closes slow clients that have read nothing for too long.
fn close_stalled(state: &mut ShardState) {
    let timeout = state.core.context.shared.settings.outbox.slow_client_timeout_s;
    let ShardCore { connections, delivery, tick, .. } = &mut state.core;
    for slot in delivery.slow.stalled(connections, delivery.budget.limit_bytes, (*tick, timeout)) {
        state.close_client(slot, &CloseReason::stalled_client());
    }
}

fn close_expired(state: &mut ShardState) {
    if state.assignments.token_expiries.is_empty() {
        return;
    }
    let now_s = unix_seconds();
    while let Some(slot) = state.assignments.token_expiries.next_due(now_s) {
        state.close_client(slot, &CloseReason::reconnect(Cause::TokenExpired));
    }
}
