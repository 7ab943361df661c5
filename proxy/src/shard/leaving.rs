//! Clients that are told to leave: each between two of its calls, within a bound.
//!
//! ```text
//!  its turn ──► one of its calls ends, or it makes none for a second ─────► told
//!      │ its next call ran by the next look, 100 ms later                     ▲
//!      ├─ half of the wait is over: told right behind the last answer ───────┤
//!      └─ the wait is over: told amid its calls ─────────────────────────────┘
//! ```
//!
//! A call that crosses the goodbye on its way is not begun, and its client learns that with the end of its connection. Most who
//! call again and again pause after an answer: then there is the most time for the goodbye to arrive. Behind the answer
//! itself, which its next call may follow at once, a client is told only if it never pauses.
//!
//! A call is what its client waits for: an invocation with an id, a stream, one of them with uploads. It is known of each hub
//! and by each transport but those of a node inside an app and of raw endpoints and Blazor circuits, where calls are not noted.
//! Client results count where app servers dial in; those of our SDK are asked within calls, or fail as when a client leaves.

use std::time::Duration;

use tokio::time::Instant;

use super::close_reason::CloseReason;
use super::connection::{Client, LeaveStage};
use super::content::Content;
use super::slot::{Serial, Slot};
use super::state::ShardState;
use crate::metrics::MoveCause;

/// Longest wait for the calls of a client: what most take, and far less than a drain. A stream may never end.
pub(super) const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Interval at which clients with running calls are looked at again.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Part of the wait after which a client is told that has not called since its turn came.
const QUIET_PART: u32 = 5;

/// Clients whose turn to leave has come, and that wait for a good moment.
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
    /// Tells a client to leave at a moment between its calls; after this wait in any case.
    pub(super) fn leave(&mut self, slot: Slot, cause: MoveCause, (now, wait): (Instant, Duration)) {
        let Some(client) = self.connections.live(slot) else { return };
        if client.cold.leave != LeaveStage::Stays {
            return;
        }
        if wait.is_zero() || matches!(client.content, Content::Raw) {
            return self.close(slot, &reason_of(cause));
        }
        let (serial, quiet_at, hurries_at, until) =
            (client.serial, now + wait / QUIET_PART, now + wait / 2, now + wait);
        self.leaving.waiting.push(LeavingClient { slot, serial, cause, quiet_at, hurries_at, until });
        let stage = if self.is_busy(client) { LeaveStage::Calls } else { LeaveStage::Waits };
        if let Some(client) = self.connections.live_mut(slot) {
            client.cold.leave = stage;
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

    /// Tells those to leave whose moment has come, or who have waited for too long. Returns whether others are left.
    pub(super) fn look_at_leaving(&mut self, now: Instant) -> bool {
        for at in std::mem::take(&mut self.leaving.waiting) {
            if self.connections.get_current(at.slot, at.serial).is_none() {
                continue;
            }
            let Some(client) = self.connections.live(at.slot) else { continue };
            let (is_busy, stage) = (self.is_busy(client), client.cold.leave);
            if now >= at.until || !is_busy && (stage != LeaveStage::Waits || now >= at.quiet_at) {
                self.close(at.slot, &reason_of(at.cause));
                continue;
            }
            if let Some(client) = self.connections.live_mut(at.slot) {
                client.cold.leave = match now >= at.hurries_at {
                    true => LeaveStage::BehindAnswer(at.cause),
                    false if is_busy => LeaveStage::Calls,
                    false => stage,
                };
            }
            self.leaving.waiting.push(at);
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
    fn a_client_leaves_after_its_answer_and_one_that_does_not_call_after_a_moment() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let (quiet, busy) = (bed.client("quiet"), bed.client("busy"));
        bed.state.begin_call(busy, "1");
        for slot in [quiet, busy] {
            leave(&mut bed, slot, now);
            leave(&mut bed, slot, now);
        }
        assert!(bed.state.leaving.take_start() && !bed.state.leaving.take_start());
        assert!(bed.state.look_at_leaving(now + LOOK_INTERVAL));
        assert!(bed.received(busy).is_empty() && bed.received(quiet).is_empty(), "its next call may be on its way");
        bed.data("busy", busy, AppServerId::from(7), ANSWER);
        assert_eq!(bed.received(busy), [ANSWER.replace('\u{1e}', ";")], "its next call may be on its way");
        assert!(bed.state.look_at_leaving(now + 2 * LOOK_INTERVAL));
        assert_eq!(bed.received(busy), TOLD);
        assert!(!bed.state.look_at_leaving(now + LEAVE_WAIT / QUIET_PART));
        assert_eq!(bed.received(quiet), TOLD);
    }

    #[test]
    fn a_client_that_calls_when_its_turn_has_come_leaves_after_that_call() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let ann = bed.client("ann");
        leave(&mut bed, ann, now);
        assert!(bed.state.look_at_leaving(now + LOOK_INTERVAL));
        // Faster than anybody looks.
        bed.state.begin_call(ann, "1");
        bed.data("ann", ann, AppServerId::from(7), ANSWER);
        bed.received(ann);
        assert!(!bed.state.look_at_leaving(now + 2 * LOOK_INTERVAL));
        assert_eq!(bed.received(ann), TOLD);
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
