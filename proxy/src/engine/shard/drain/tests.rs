//! Tests for drains of one shard.

use trunkline_protocol::cause::Cause;

use super::*;
use crate::engine::shard::moving::reconnect::sever;
use crate::engine::shard::testbed::Testbed;

#[test]
fn a_drain_closes_the_clients_that_are_due_and_then_all() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let everyone = bed.state.core.connections.everyone();
    let schedule = DrainSchedule::new(everyone, Duration::from_secs(10), || 0.0);
    let mut departures = Departures { schedule, begun: Instant::now() };
    departures.depart_due(&mut bed.state, |state, slot| leave_drained(state, slot, Duration::ZERO));
    assert!(bed.state.core.connections.live(ann).is_none() && bed.state.core.connections.live(ben).is_some());
    assert!(!bed.state.is_drained);
    close_all_drained(&mut bed.state);
    assert!(bed.state.core.connections.live(ben).is_none() && bed.state.is_drained);
}

#[test]
fn a_client_on_its_way_to_a_node_that_is_late_for_a_moment_keeps_the_drain_open() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    bed.make_resumable(ann);
    assert!(!has_clients_left(&mut bed.state), "no other node is ready");
    let client = bed.state.core.connections.live_mut(ann).unwrap();
    client.cold_mut().resumption_mut().unwrap().send_elsewhere(MoveCause::Drain);
    sever(&mut bed.state, ann, Cause::Drained);
    assert!(has_clients_left(&mut bed.state));
}
