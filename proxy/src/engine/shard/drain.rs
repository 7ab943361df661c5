//! Departures: clients that a drain, shed or rebalance moves away one by one.
//!
//! | file | contents |
//! |---|---|
//! | `departure_search` `drain_schedule` | which clients go, and when |
//! | `leaving` | which of them wait for the end of their calls |
//! | `server_rebalance` `reroute` | policies: to other nodes, to another app server, by another route |
//!
//! A drain asks all clients to reconnect over a period, then refuses new ones.

pub(super) mod departure_search;
pub(super) mod drain_schedule;
pub(super) mod leaving;
pub(super) mod rebalance_order;
pub(crate) mod reroute;
pub(super) mod server_rebalance;

use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::cause::Cause;

use super::close_reason::CloseReason;
use super::connection::{Client, Resumption};
use super::moving::reconnect::send_elsewhere;
use super::shard_state::ShardState;
use super::slot::{Serial, Slot};
use crate::ground::metrics::MoveCause;
use departure_search::{DepartureSearch, fit_for_shed};
use drain_schedule::{DrainSchedule, chance};
use leaving::LEAVE_WAIT;

/// Departures spread over a period, run by one loop of the driver.
#[derive(Debug)]
pub(super) struct Departures {
    schedule: DrainSchedule<(Slot, Serial)>,
    begun: Instant,
}

impl Departures {
    pub(super) fn new(clients: Vec<(Slot, Serial)>, begun: Instant, spread: Duration) -> Self {
        Self { schedule: DrainSchedule::new(clients, spread, chance), begun }
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        Some(self.begun + self.schedule.next_at()?)
    }

    /// Runs the due departures of clients that are still here.
    pub(super) fn depart_due(&mut self, state: &mut ShardState, go: impl Fn(&mut ShardState, Slot)) {
        let now = self.begun.elapsed();
        while let Some((slot, serial)) = self.schedule.next(now, chance) {
            if state.core.connections.get_current(slot, serial).is_some_and(|client| !client.life().is_closed()) {
                go(state, slot);
            }
        }
    }
}

/// Moves a client away in a drain. A client with running calls leaves after `wait` at the latest.
pub(super) fn leave_drained(state: &mut ShardState, slot: Slot, wait: Duration) {
    let may_move = state.core.context.shared.other_nodes().are_ready();
    if !(may_move && send_elsewhere(state, slot, MoveCause::Drain)) {
        leave(state, slot, MoveCause::Drain, (Instant::now(), wait));
    }
}

/// Moves a client away in a shed. A client that can't move is asked to reconnect between two calls.
pub(super) fn leave_shed(state: &mut ShardState, slot: Slot) {
    if !send_elsewhere(state, slot, MoveCause::Rebalance) {
        leave(state, slot, MoveCause::Rebalance, (Instant::now(), LEAVE_WAIT));
    }
}

/// Runs one step of the search for clients to shed. Returns `true` after the last one.
pub(super) fn search_for_shed(state: &mut ShardState, search: &mut DepartureSearch) -> bool {
    let is_done = search.step(&state.core.connections, fit_for_shed);
    if is_done {
        state.shed_from = search.next_from();
    }
    is_done
}

/// Closes a client between two of its calls, or when the wait is over.
fn leave(state: &mut ShardState, slot: Slot, cause: MoveCause, within: (Instant, Duration)) {
    if state.leaving.add_client(&mut state.core, slot, cause, within) {
        state.close_client(slot, &CloseReason::of_move(cause));
    }
}

/// Closes a client with an event stream on another node that is shutting down.
pub(crate) fn leave_carried(state: &mut ShardState, id: &str, now: Instant) {
    let context = &state.core.context;
    let Some(at) = context.shared.routes.find(id).filter(|at| at.shard == context.index) else { return };
    if state.core.connections.live(at.slot).is_some_and(|client| *client.id == *id) {
        leave(state, at.slot, MoveCause::Drain, (now, LEAVE_WAIT));
    }
}

/// Closes leaving clients that are between calls or out of time. Returns whether others are left.
pub(super) fn close_leaving(state: &mut ShardState, now: Instant) -> bool {
    for (slot, cause) in state.leaving.take_due(&mut state.core, now) {
        state.close_client(slot, &CloseReason::of_move(cause));
    }
    !state.leaving.is_empty()
}

/// Closes all clients so that they reconnect elsewhere, and refuses new ones.
pub(super) fn close_all_drained(state: &mut ShardState) {
    state.is_drained = true;
    for (slot, _) in state.core.connections.everyone() {
        state.close_client(slot, &CloseReason::reconnect(Cause::Drained));
    }
}

/// Tries again to move clients that returned during a drain. Returns whether any clients are left or waiting
/// for a call to end.
pub(super) fn has_clients_left(state: &mut ShardState) -> bool {
    let mut are_left = !state.leaving.is_empty();
    let may_move = state.core.context.shared.other_nodes().are_ready();
    for (slot, _) in state.core.connections.everyone() {
        are_left |= match may_move {
            true => send_elsewhere(state, slot, MoveCause::Drain),
            // The other nodes may be late for a moment.
            false => state.core.connections.live(slot).is_some_and(is_sent_elsewhere),
        };
    }
    are_left
}

/// Whether a client was told by this drain to resume at another node, and has not yet.
fn is_sent_elsewhere(client: &Client) -> bool {
    let cause = client.cold().resumption().map(Resumption::move_cause);
    client.is_away() && cause == Some(MoveCause::Drain)
}

#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod tests;
