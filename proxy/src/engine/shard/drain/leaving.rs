//! Leaving clients: each is closed between two of its calls, within a time limit.
//!
//! ```text
//!  chosen ────► a call ends, or no call for a second ──────────────────────► closed
//!      │ next call already running at the next check, 100 ms later            ▲
//!      ├─ half of the wait is over: closed directly after the last reply ─────┤
//!      └─ the wait is over: closed during its calls ──────────────────────────┘
//! ```
//!
//! A call that crosses the close message is not started; its client sees the close. Most clients pause after a reply,
//! so the close message arrives in time. Only a client that never pauses is closed directly after a reply, and may have
//! sent its next call.
//!
//! A call is a message that its client awaits: an invocation with an id, or a stream, with or without uploads. Calls
//! are tracked except in embedded nodes, raw endpoints and Blazor circuits. Client results count for dialled-in app
//! servers; our SDK requests them within calls, otherwise they fail as for a disconnected client.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::shard::connection::LeaveStage;
use crate::engine::shard::content::Content;
use crate::engine::shard::shard_core::ShardCore;
use crate::engine::shard::slot::{Serial, Slot};
use crate::ground::metrics::MoveCause;

/// Maximum wait for a client's calls: enough for most, and far less than a drain. A stream may never end.
pub(crate) const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Interval between checks of clients with running calls.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Fraction of the wait after which a client without calls is closed.
const QUIET_PART: u32 = 5;

#[derive(Debug, Default)]
pub(crate) struct LeavingClients {
    waiting: Vec<LeavingClient>,
    /// The driver checks the clients.
    is_watched: bool,
}

#[derive(Debug)]
struct LeavingClient {
    slot: Slot,
    serial: Serial,
    cause: MoveCause,
    /// From then on closed even without a call.
    quiet_at: Instant,
    /// From then on closed directly after a reply.
    hurries_at: Instant,
    /// Closed at this time in any case.
    until: Instant,
}

impl LeavingClients {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of clients waiting for this cause.
    pub(crate) fn count_of(&self, cause: MoveCause) -> usize {
        self.waiting.iter().filter(|client| client.cause == cause).count()
    }

    /// Whether the driver has to start checking the clients.
    pub(crate) fn take_start(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_watched, true)
    }
}

/// Wait for a client's calls that is appropriate for a drain of this duration.
pub(crate) fn wait_within(spread: Duration) -> Duration {
    LEAVE_WAIT.min(spread / 4)
}

impl LeavingClients {
    /// Schedules a client to be closed between calls, or after the wait in any case. Returns whether it has to
    /// be closed now.
    #[must_use]
    pub(crate) fn add_client(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        cause: MoveCause,
        (now, wait): (Instant, Duration),
    ) -> bool {
        let Some(client) = core.connections.live(slot) else { return false };
        if client.life().leaving().is_some() {
            return false;
        }
        if wait.is_zero() || matches!(client.content(), Content::Raw) {
            return true;
        }
        let (serial, quiet_at, hurries_at, until) =
            (client.serial(), now + wait / QUIET_PART, now + wait / 2, now + wait);
        self.waiting.push(LeavingClient { slot, serial, cause, quiet_at, hurries_at, until });
        let is_busy = core.is_busy(client);
        if let Some(client) = core.connections.live_mut(slot) {
            client.life_mut().begin_to_leave(is_busy);
        }
        false
    }

    /// Clients that are between calls or out of time, to be closed for these causes.
    #[must_use]
    pub(crate) fn take_due(&mut self, core: &mut ShardCore, now: Instant) -> Vec<(Slot, MoveCause)> {
        let mut due = Vec::new();
        for at in std::mem::take(&mut self.waiting) {
            if core.connections.get_current(at.slot, at.serial).is_none() {
                continue;
            }
            let Some(client) = core.connections.live(at.slot) else { continue };
            let (is_busy, stage) = (core.is_busy(client), client.life().leaving());
            if now >= at.until || !is_busy && (stage != Some(LeaveStage::Quiet) || now >= at.quiet_at) {
                due.push((at.slot, at.cause));
                continue;
            }
            if let Some(client) = core.connections.live_mut(at.slot) {
                match now >= at.hurries_at {
                    true => client.life_mut().hurry(at.cause),
                    false if is_busy => client.life_mut().called(),
                    false => {}
                }
            }
            self.waiting.push(at);
        }
        self.is_watched = !self.is_empty();
        due
    }
}

#[cfg(test)]
mod tests;
