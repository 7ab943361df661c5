//! Drain: all clients are sent elsewhere, spread over a time; then none is accepted any more.

pub(super) mod drain_schedule;
pub(super) mod leaving;
pub(super) mod levelling;
pub(super) mod reroute;
pub(super) mod shed;
pub(super) mod straggler;

use std::time::Duration;

use tokio::time::Instant;

use super::assignments::Assignments;
use super::close_reason::CloseReason;
use super::moving::Moves;
use super::shard_core::ShardCore;
use super::slot::{Serial, Slot};
use crate::metrics::MoveCause;
use drain_schedule::{DrainSchedule, chance};
use leaving::LeavingClients;

/// Drain of one shard.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// All clients were told to leave: so is each that comes now.
    is_drained: bool,
}

impl Drain {
    /// Tells the clients that are due in a drain since this moment to reconnect elsewhere; those with running calls
    /// after this wait at the latest.
    pub(super) fn leave_due(
        &mut self,
        core: &mut ShardCore,
        assignments: &mut Assignments,
        moves: &mut Moves,
        leaving: &mut LeavingClients,
        schedule: &mut DrainSchedule<(Slot, Serial)>,
        (begun, wait): (Instant, Duration),
    ) {
        let now = Instant::now();
        while let Some((slot, serial)) = schedule.next(now - begun, chance) {
            let is_there = core.connections.get_current(slot, serial).is_some();
            let may_move = || core.context.shared.other_nodes().are_ready();
            if is_there && !(may_move() && moves.send_elsewhere(core, slot, MoveCause::Drain)) {
                leaving.leave(core, assignments, slot, MoveCause::Drain, (now, wait));
            }
        }
    }

    /// Whether all clients were told to leave: so is each that comes now.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Tells all clients to reconnect elsewhere, and each that comes from now on.
    pub(super) fn close_all_drained(&mut self, core: &mut ShardCore, assignments: &mut Assignments) {
        self.is_drained = true;
        for (slot, _) in core.connections.everyone() {
            assignments.close(core, slot, &CloseReason::drained());
        }
    }

    /// Has clients that have come back in a drain try once more. Returns whether any are left, or wait for the end of a
    /// call.
    pub(super) fn are_any_left(
        &mut self,
        core: &mut ShardCore,
        moves: &mut Moves,
        leaving: &mut LeavingClients,
    ) -> bool {
        let mut are_left = !leaving.are_none();
        for (slot, _) in core.connections.everyone() {
            are_left |= moves.send_elsewhere(core, slot, MoveCause::Drain);
        }
        are_left
    }
}

#[cfg(test)]
mod tests;
