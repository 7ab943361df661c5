//! Clients that are about to leave: each is closed between two of its calls, within a bound.
//!
//! ```text
//!  chosen ────► one of its calls ends, or it makes none for a second ─────► closed
//!      │ its next call ran by the next look, 100 ms later                     ▲
//!      ├─ half of the wait is over: closed right behind the last answer ─────┤
//!      └─ the wait is over: closed amid its calls ───────────────────────────┘
//! ```
//!
//! A call that crosses the close message is not begun; its client sees that its connection has ended. Most clients
//! that call again and again pause after an answer, which leaves the close message the most time to arrive. A client is
//! closed right behind an answer, which its next call may follow immediately, only if it never pauses.
//!
//! A call is a message that its client awaits: an invocation with an id or a stream, with uploads or without. Calls are
//! tracked for all hubs and transports, except at a node inside an app, a raw endpoint or a Blazor circuit. Client
//! results count where app servers dial in; our SDK requests them within calls, or they fail as when a client leaves.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::MoveCause;
use crate::shard::connection::LeaveStage;
use crate::shard::content::Content;
use crate::shard::shard_core::ShardCore;
use crate::shard::slot::{Serial, Slot};

/// Longest wait for the calls of a client: what most take, and far less than a drain. A stream may never end.
pub(crate) const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Interval at which clients with running calls are looked at again.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Part of the wait after which a client is told that has not called since its turn came.
const QUIET_PART: u32 = 5;

/// Clients whose turn to leave has come, and that wait for a good moment.
#[derive(Debug, Default)]
pub(crate) struct LeavingClients {
    waiting: Vec<LeavingClient>,
    /// The driver looks at them.
    is_watched: bool,
}

#[derive(Debug)]
struct LeavingClient {
    slot: Slot,
    serial: Serial,
    cause: MoveCause,
    /// From then on it is told even if it has not called.
    quiet_at: Instant,
    /// From then on it is told behind an answer.
    hurries_at: Instant,
    /// Then it is told whatever runs.
    until: Instant,
}

impl LeavingClients {
    /// Whether no client waits for its moment.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of those who wait for this cause.
    #[must_use]
    pub(crate) fn count_of(&self, cause: MoveCause) -> usize {
        self.waiting.iter().filter(|client| client.cause == cause).count()
    }

    /// Whether the driver has to begin to look at them.
    pub(crate) fn take_start(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_watched, true)
    }
}

/// Wait for the calls of a client that fits a drain of this time.
#[must_use]
pub(crate) fn wait_within(spread: Duration) -> Duration {
    LEAVE_WAIT.min(spread / 4)
}

impl LeavingClients {
    /// Has a client leave at a moment between its calls, and after this wait in any case. Returns whether it is to be
    /// closed now.
    #[must_use]
    pub(crate) fn add(
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

    /// Clients whose moment has come, or that have waited for too long: they are to be closed for these causes.
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
