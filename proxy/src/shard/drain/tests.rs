//! Tests for drains of one shard.

use super::*;
use crate::shard::testbed::Testbed;

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
