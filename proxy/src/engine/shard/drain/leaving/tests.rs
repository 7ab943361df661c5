//! Tests for leaving clients.

use trunkline_protocol::hub::MessageKind;

use super::*;
use crate::engine::shard::drain::{self, close_leaving};
use crate::engine::shard::shard_state::ShardTask;
use crate::engine::shard::testbed::Testbed;
use crate::engine::upstream::AppServerId;

const TOLD: [&str; 2] = ["{\"type\":7,\"allowReconnect\":true};", "close"];
const ANSWER: &str = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";

fn leave(bed: &mut Testbed, slot: Slot, now: Instant) -> Vec<ShardTask> {
    drain::leave(&mut bed.state, slot, MoveCause::Drain, (now, LEAVE_WAIT));
    bed.end_step()
}

#[test]
fn a_client_leaves_after_its_answer_and_one_that_does_not_call_after_a_moment() {
    let (mut bed, now) = (Testbed::new(), Instant::now());
    let (quiet, busy) = (bed.client("quiet"), bed.client("busy"));
    bed.state.core.begin_call(busy, "1", MessageKind::Invocation);
    let twice = |slot| [slot, slot];
    let tasks: Vec<_> = [quiet, busy].into_iter().flat_map(twice).flat_map(|slot| leave(&mut bed, slot, now)).collect();
    assert!(matches!(*tasks, [ShardTask::WatchLeaving]), "{tasks:?}");
    assert!(close_leaving(&mut bed.state, now + LOOK_INTERVAL));
    assert!(bed.received(busy).is_empty() && bed.received(quiet).is_empty(), "its next call may be on its way");
    bed.data("busy", busy, AppServerId::from(7), ANSWER);
    assert_eq!(bed.received(busy), [ANSWER.replace('\u{1e}', ";")], "its next call may be on its way");
    assert!(close_leaving(&mut bed.state, now + 2 * LOOK_INTERVAL));
    assert_eq!(bed.received(busy), TOLD);
    assert!(!close_leaving(&mut bed.state, now + LEAVE_WAIT / QUIET_PART));
    assert_eq!(bed.received(quiet), TOLD);
}

#[test]
fn a_client_that_calls_when_its_turn_has_come_leaves_after_that_call() {
    let (mut bed, now) = (Testbed::new(), Instant::now());
    let ann = bed.client("ann");
    leave(&mut bed, ann, now);
    assert!(close_leaving(&mut bed.state, now + LOOK_INTERVAL));
    // Between two checks.
    bed.state.core.begin_call(ann, "1", MessageKind::Invocation);
    bed.data("ann", ann, AppServerId::from(7), ANSWER);
    bed.received(ann);
    assert!(!close_leaving(&mut bed.state, now + 2 * LOOK_INTERVAL));
    assert_eq!(bed.received(ann), TOLD);
}

#[test]
fn a_client_that_is_never_quiet_leaves_behind_an_answer() {
    let (mut bed, now) = (Testbed::new(), Instant::now());
    let busy = bed.client("busy");
    for id in ["1", "2"] {
        bed.state.core.begin_call(busy, id, MessageKind::Invocation);
    }
    leave(&mut bed, busy, now);
    assert!(close_leaving(&mut bed.state, now + LEAVE_WAIT / 2));
    bed.data("busy", busy, AppServerId::from(7), ANSWER);
    assert_eq!(bed.received(busy).len(), 1, "another call runs");
    let last = "{\"type\":3,\"invocationId\":\"2\",\"result\":2}\u{1e}";
    bed.data("busy", busy, AppServerId::from(7), last);
    let answer = last.replace('\u{1e}', ";");
    assert_eq!(bed.received(busy), [answer.as_str(), TOLD[0], TOLD[1]]);
    assert!(!close_leaving(&mut bed.state, now + LEAVE_WAIT));
}

#[test]
fn a_call_that_does_not_end_holds_its_client_for_a_bounded_time() {
    let (mut bed, now) = (Testbed::new(), Instant::now());
    let busy = bed.client("busy");
    bed.state.core.begin_call(busy, "1", MessageKind::Invocation);
    leave(&mut bed, busy, now);
    let just_before = now + LEAVE_WAIT - Duration::from_millis(1);
    assert!(close_leaving(&mut bed.state, just_before) && bed.received(busy).is_empty());
    assert!(!close_leaving(&mut bed.state, now + LEAVE_WAIT));
    assert_eq!(bed.received(busy), TOLD);
}

#[test]
fn a_wait_fits_its_drain() {
    assert_eq!(wait_within(Duration::from_secs(25)), LEAVE_WAIT);
    assert_eq!(wait_within(Duration::from_secs(4)), Duration::from_secs(1));
    assert_eq!(wait_within(Duration::ZERO), Duration::ZERO);
}
