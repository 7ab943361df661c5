//! Clients that are told to leave: each between two of its calls, within a bound.
//!
//! ```text
//!  its turn ──► one of its calls ends, or it makes none for a second ─────► told
//!      │ its next call ran by the next look, 100 ms later                     ▲
//!      ├─ half of the wait is over: told right behind the last answer ───────┤
//!      └─ the wait is over: told amid its calls ─────────────────────────────┘
//! ```
//!
//! A call that crosses the goodbye on its way is not begun, and its client learns that with the end of its connection.
//! Most who call again and again pause after an answer: then there is the most time for the goodbye to arrive. Behind
//! the answer itself, which its next call may follow at once, a client is told only if it never pauses.
//!
//! A call is what its client waits for: an invocation with an id, a stream, one of them with uploads. It is known of
//! each hub and by each transport but those of a node inside an app and of raw endpoints and Blazor circuits, where
//! calls are not noted. Client results count where app servers dial in; those of our SDK are asked within calls, or
//! fail as when a client leaves.

use std::time::Duration;

use tokio::time::Instant;

use super::assignments::Assignments;
use super::close_reason::CloseReason;
use super::connection::LeaveStage;
use super::content::Content;
use super::shard_core::ShardCore;
use super::slot::{Serial, Slot};
use crate::metrics::MoveCause;

/// Longest wait for the calls of a client: what most take, and far less than a drain. A stream may never end.
pub(super) const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Interval at which clients with running calls are looked at again.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

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

impl LeavingClients {
    /// Tells a client to leave at a moment between its calls; after this wait in any case.
    pub(super) fn leave(
        &mut self,
        core: &mut ShardCore,
        assignments: &mut Assignments,
        slot: Slot,
        cause: MoveCause,
        (now, wait): (Instant, Duration),
    ) {
        let Some(client) = core.connections.live(slot) else { return };
        if client.cold.leave != LeaveStage::Stays {
            return;
        }
        if wait.is_zero() || matches!(client.content, Content::Raw) {
            return assignments.close(core, slot, &CloseReason::of_move(cause));
        }
        let (serial, quiet_at, hurries_at, until) =
            (client.serial, now + wait / QUIET_PART, now + wait / 2, now + wait);
        self.waiting.push(LeavingClient { slot, serial, cause, quiet_at, hurries_at, until });
        let stage = if core.is_busy(client) { LeaveStage::Calls } else { LeaveStage::Waits };
        if let Some(client) = core.connections.live_mut(slot) {
            client.cold.leave = stage;
        }
    }

    /// Tells a client to leave whose event stream another node carries that stops.
    pub(crate) fn leave_carried(
        &mut self,
        core: &mut ShardCore,
        assignments: &mut Assignments,
        id: &str,
        now: Instant,
    ) {
        let Some(at) = core.context.shared.routes.find(id).filter(|at| at.shard == core.context.index) else { return };
        if core.connections.live(at.slot).is_some_and(|client| *client.id == *id) {
            self.leave(core, assignments, at.slot, MoveCause::Drain, (now, LEAVE_WAIT));
            assignments.finish_batch(core);
        }
    }

    /// Tells those to leave whose moment has come, or who have waited for too long. Returns whether others are left.
    pub(super) fn look_at_leaving(
        &mut self,
        core: &mut ShardCore,
        assignments: &mut Assignments,
        now: Instant,
    ) -> bool {
        for at in std::mem::take(&mut self.waiting) {
            if core.connections.get_current(at.slot, at.serial).is_none() {
                continue;
            }
            let Some(client) = core.connections.live(at.slot) else { continue };
            let (is_busy, stage) = (core.is_busy(client), client.cold.leave);
            if now >= at.until || !is_busy && (stage != LeaveStage::Waits || now >= at.quiet_at) {
                assignments.close(core, at.slot, &CloseReason::of_move(at.cause));
                continue;
            }
            if let Some(client) = core.connections.live_mut(at.slot) {
                client.cold.leave = match now >= at.hurries_at {
                    true => LeaveStage::BehindAnswer(at.cause),
                    false if is_busy => LeaveStage::Calls,
                    false => stage,
                };
            }
            self.waiting.push(at);
        }
        assignments.finish_batch(core);
        self.is_watched = !self.are_none();
        self.is_watched
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
        bed.state.leaving.leave(
            &mut bed.state.core,
            &mut bed.state.assignments,
            slot,
            MoveCause::Drain,
            (now, LEAVE_WAIT),
        );
        bed.state.assignments.finish_batch(&mut bed.state.core);
    }

    #[test]
    fn a_client_leaves_after_its_answer_and_one_that_does_not_call_after_a_moment() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let (quiet, busy) = (bed.client("quiet"), bed.client("busy"));
        bed.state.core.begin_call(busy, "1");
        for slot in [quiet, busy] {
            leave(&mut bed, slot, now);
            leave(&mut bed, slot, now);
        }
        assert!(bed.state.leaving.take_start() && !bed.state.leaving.take_start());
        assert!(bed.state.leaving.look_at_leaving(
            &mut bed.state.core,
            &mut bed.state.assignments,
            now + LOOK_INTERVAL
        ));
        assert!(bed.received(busy).is_empty() && bed.received(quiet).is_empty(), "its next call may be on its way");
        bed.data("busy", busy, AppServerId::from(7), ANSWER);
        assert_eq!(bed.received(busy), [ANSWER.replace('\u{1e}', ";")], "its next call may be on its way");
        assert!(bed.state.leaving.look_at_leaving(
            &mut bed.state.core,
            &mut bed.state.assignments,
            now + 2 * LOOK_INTERVAL
        ));
        assert_eq!(bed.received(busy), TOLD);
        assert!(!bed.state.leaving.look_at_leaving(
            &mut bed.state.core,
            &mut bed.state.assignments,
            now + LEAVE_WAIT / QUIET_PART
        ));
        assert_eq!(bed.received(quiet), TOLD);
    }

    #[test]
    fn a_client_that_calls_when_its_turn_has_come_leaves_after_that_call() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let ann = bed.client("ann");
        leave(&mut bed, ann, now);
        assert!(bed.state.leaving.look_at_leaving(
            &mut bed.state.core,
            &mut bed.state.assignments,
            now + LOOK_INTERVAL
        ));
        // Faster than anybody looks.
        bed.state.core.begin_call(ann, "1");
        bed.data("ann", ann, AppServerId::from(7), ANSWER);
        bed.received(ann);
        assert!(!bed.state.leaving.look_at_leaving(
            &mut bed.state.core,
            &mut bed.state.assignments,
            now + 2 * LOOK_INTERVAL
        ));
        assert_eq!(bed.received(ann), TOLD);
    }

    #[test]
    fn a_client_that_is_never_quiet_leaves_behind_an_answer() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let busy = bed.client("busy");
        for id in ["1", "2"] {
            bed.state.core.begin_call(busy, id);
        }
        leave(&mut bed, busy, now);
        assert!(bed.state.leaving.look_at_leaving(
            &mut bed.state.core,
            &mut bed.state.assignments,
            now + LEAVE_WAIT / 2
        ));
        bed.data("busy", busy, AppServerId::from(7), ANSWER);
        assert_eq!(bed.received(busy).len(), 1, "another call runs");
        let last = "{\"type\":3,\"invocationId\":\"2\",\"result\":2}\u{1e}";
        bed.data("busy", busy, AppServerId::from(7), last);
        let answer = last.replace('\u{1e}', ";");
        assert_eq!(bed.received(busy), [answer.as_str(), TOLD[0], TOLD[1]]);
        assert!(!bed.state.leaving.look_at_leaving(&mut bed.state.core, &mut bed.state.assignments, now + LEAVE_WAIT));
    }

    #[test]
    fn a_call_that_does_not_end_holds_its_client_for_a_bounded_time() {
        let (mut bed, now) = (Testbed::new(), Instant::now());
        let busy = bed.client("busy");
        bed.state.core.begin_call(busy, "1");
        leave(&mut bed, busy, now);
        let just_before = now + LEAVE_WAIT - Duration::from_millis(1);
        assert!(
            bed.state.leaving.look_at_leaving(&mut bed.state.core, &mut bed.state.assignments, just_before)
                && bed.received(busy).is_empty()
        );
        assert!(!bed.state.leaving.look_at_leaving(&mut bed.state.core, &mut bed.state.assignments, now + LEAVE_WAIT));
        assert_eq!(bed.received(busy), TOLD);
    }

    #[test]
    fn a_wait_fits_its_drain() {
        assert_eq!(wait_within(Duration::from_secs(25)), LEAVE_WAIT);
        assert_eq!(wait_within(Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(wait_within(Duration::ZERO), Duration::ZERO);
    }
}
