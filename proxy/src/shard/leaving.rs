//! Clients that are told to leave: each between two of its calls, within a bound.
//!
//! ```text
//!  its turn ──► no call of it runs ──────────────────────────────────────► told
//!      │ one runs: looked at again each 100 ms, and told when none does ─────▲
//!      ├─ half of the wait is over: told right behind the last answer ───────┤
//!      └─ the wait is over: told amid its calls ─────────────────────────────┘
//! ```
//!
//! A call that crosses the goodbye on its way is not begun, and its client learns that with the end of its connection. That is
//! why a client is told while it is quiet, and behind an answer, which its next call may follow at once, only if it never is.
//!
//! A call is what its client waits for: an invocation with an id, a stream, one of them with uploads. It is known of each hub
//! and by each transport but those of a node inside an app and of raw endpoints and Blazor circuits, where calls are not noted.
//! Client results count where app servers dial in; those of our SDK are asked within calls, or fail as when a client leaves.

use std::time::Duration;

use tokio::time::Instant;

use super::close_reason::CloseReason;
use super::connection::{Client, LeaveStage};
use super::slot::{Serial, Slot};
use super::state::ShardState;
use crate::metrics::MoveCause;

/// Longest wait for the calls of a client: what most take, and far less than a drain. A stream may never end.
pub(super) const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Interval at which clients with running calls are looked at again.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Clients whose turn to leave has come, and that have running calls.
#[derive(Debug, Default)]
pub(super) struct LeavingClients {
    waiting: Vec<LeavingClient>,
    /// The driver looks at them.
    is_watched: bool,
}

#[derive(Debug)]
struct LeavingClient {
    slot: Slot,
    serial: Serial,
    cause: MoveCause,
    /// From then on it is told behind an answer.
    hurries_at: Instant,
    /// Then it is told whatever runs.
    until: Instant,
}

impl LeavingClients {
    /// Whether no client waits for the end of its calls.
    #[must_use]
    pub(super) fn are_none(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of those who wait for this cause.
    #[must_use]
    pub(super) fn count_of(&self, cause: MoveCause) -> usize {
        self.waiting.iter().filter(|client| client.cause == cause).count()
    }

    /// Whether the driver has to begin to look at them.
    pub(super) fn take_start(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_watched, true)
    }
}

/// Wait for the calls of a client that fits a drain of this time.
#[must_use]
pub(super) fn wait_within(spread: Duration) -> Duration {
    LEAVE_WAIT.min(spread / 4)
}

impl ShardState {
    /// Tells a client to leave, now or as soon as none of its calls runs; after this wait in any case.
    pub(super) fn leave(&mut self, slot: Slot, cause: MoveCause, (now, wait): (Instant, Duration)) {
        let Some(client) = self.connections.live(slot) else { return };
        if client.cold.leave != LeaveStage::Stays {
            return;
        }
        if wait.is_zero() || !self.is_busy(client) {
            return self.close(slot, &reason_of(cause));
        }
        let (serial, hurries_at, until) = (client.serial, now + wait / 2, now + wait);
        self.leaving.waiting.push(LeavingClient { slot, serial, cause, hurries_at, until });
        if let Some(client) = self.connections.live_mut(slot) {
            client.cold.leave = LeaveStage::Waits;
        }
    }

    /// Tells a client to leave whose event stream another node carries that stops.
    pub(crate) fn leave_carried(&mut self, id: &str, now: Instant) {
        let Some(at) = self.context.shared.routes.find(id).filter(|at| at.shard == self.context.index) else { return };
        if self.connections.live(at.slot).is_some_and(|client| *client.id == *id) {
            self.leave(at.slot, MoveCause::Drain, (now, LEAVE_WAIT));
            self.finish_batch();
        }
    }

    /// Tells those to leave that have no running call any more, or have waited for too long. Returns whether others are left.
    pub(super) fn look_at_leaving(&mut self, now: Instant) -> bool {
        for at in std::mem::take(&mut self.leaving.waiting) {
            let Some(client) = self.connections.get_current(at.slot, at.serial).filter(|client| !client.is_closing())
            else {
                continue;
            };
            if now >= at.hurries_at {
                client.cold.leave = LeaveStage::BehindAnswer(at.cause);
            }
            let is_due = now >= at.until || self.connections.live(at.slot).is_some_and(|client| !self.is_busy(client));
            if is_due {
                self.close(at.slot, &reason_of(at.cause));
            } else {
                self.leaving.waiting.push(at);
            }
        }
        self.finish_batch();
        self.leaving.is_watched = !self.leaving.are_none();
        self.leaving.is_watched
    }

    /// Tells a client to leave that was just answered, if that was its last call and it has waited for a while.
    pub(super) fn leave_behind_answer(&mut self, slot: Slot) {
        if let Some(client) = self.connections.live(slot)
            && let LeaveStage::BehindAnswer(cause) = client.cold.leave
            && !self.is_busy(client)
        {
            self.close(slot, &reason_of(cause));
        }
    }

    /// Whether a client waits for something: the answer to its hub handshake or to a call; or somebody for its answer.
    fn is_busy(&self, client: &Client) -> bool {
        let sides = || client.cold.sides.iter().flat_map(|sides| sides.iter());
        let asks_it =
            || client.home.of_door().is_some() && self.context.shared.client_results.is_waiting_for(&client.id);
        !client.is_open() || client.cold.calls.count() > 0 || sides().any(|side| !side.is_idle()) || asks_it()
    }
}

/// Reason of which client and app server are told.
fn reason_of(cause: MoveCause) -> CloseReason {
    match cause {
        MoveCause::Rebalance => CloseReason::rebalanced(),
        _ => CloseReason::drained(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::testbed::Testbed;
    use crate::upstream::AppServerId;

    const TOLD: [&str; 2] = ["{\"type\":7,\"allowReconnect\":true};", "close"];
    const ANSWER: &str = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";

    fn leave(bed: &mut Testbed, slot: Slot, now: Instant) {
        bed.state.leave(slot, MoveCause::Drain, (now, LEAVE_WAIT));
        bed.state.finish_batch();
    }

    #[test]
    fn a_quiet_client_leaves_at_once_and_one_with_a_call_behind_its_answer() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let (quiet, busy) = (bed.client("quiet"), bed.client("busy"));
        bed.state.begin_call(busy, "1");
        for slot in [quiet, busy] {
            leave(&mut bed, slot, now);
            leave(&mut bed, slot, now);
        }
        assert_eq!(bed.received(quiet), TOLD);
        assert!(bed.state.leaving.take_start() && !bed.state.leaving.take_start());
        assert!(bed.state.look_at_leaving(now + LOOK_INTERVAL));
        assert!(bed.received(busy).is_empty());
        bed.data("busy", busy, AppServerId::from(7), ANSWER);
        assert_eq!(bed.received(busy), [ANSWER.replace('\u{1e}', ";")], "its next call may be on its way");
        assert!(!bed.state.look_at_leaving(now + 2 * LOOK_INTERVAL));
        assert_eq!(bed.received(busy), TOLD);
    }

    #[test]
    fn a_client_that_is_never_quiet_leaves_behind_an_answer() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let busy = bed.client("busy");
        for id in ["1", "2"] {
            bed.state.begin_call(busy, id);
        }
        leave(&mut bed, busy, now);
        assert!(bed.state.look_at_leaving(now + LEAVE_WAIT / 2));
        bed.data("busy", busy, AppServerId::from(7), ANSWER);
        assert_eq!(bed.received(busy).len(), 1, "another call runs");
        let last = "{\"type\":3,\"invocationId\":\"2\",\"result\":2}\u{1e}";
        bed.data("busy", busy, AppServerId::from(7), last);
        let answer = last.replace('\u{1e}', ";");
        assert_eq!(bed.received(busy), [answer.as_str(), TOLD[0], TOLD[1]]);
        assert!(!bed.state.look_at_leaving(now + LEAVE_WAIT));
    }

    #[test]
    fn a_call_that_does_not_end_holds_its_client_for_a_bounded_time() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let busy = bed.client("busy");
        bed.state.begin_call(busy, "1");
        leave(&mut bed, busy, now);
        let just_before = now + LEAVE_WAIT - Duration::from_millis(1);
        assert!(bed.state.look_at_leaving(just_before) && bed.received(busy).is_empty());
        assert!(!bed.state.look_at_leaving(now + LEAVE_WAIT));
        assert_eq!(bed.received(busy), TOLD);
    }

    #[test]
    fn a_wait_fits_its_drain() {
        assert_eq!(wait_within(Duration::from_secs(25)), LEAVE_WAIT);
        assert_eq!(wait_within(Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(wait_within(Duration::ZERO), Duration::ZERO);
    }
}
