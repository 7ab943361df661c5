//! Steps of a shard, with a clock of ticks.

use super::*;
use crate::shard::ReserveError;
use crate::shard::connection::SetName;
use crate::shard::testbed::{Testbed, whole_id};

#[test]
fn a_close_happens_once_and_leaves_nothing_to_find() {
    let mut bed = Testbed::new();
    let (ann, hub) = (bed.client("ann"), bed.hub.index());
    bed.state.close(ann, &CloseReason::drained());
    bed.state.close(ann, &CloseReason::timed_out());
    assert_eq!(bed.received(ann), [r#"{"type":7,"allowReconnect":true};"#, "close"]);
    assert!(bed.state.connections.members(hub, SetName::Hub).is_empty());
    assert_eq!(bed.state.connections.find(hub, &whole_id("ann")), None);
    assert_eq!(bed.state.context.counters.hub(hub.get()).closed.total(), 1);
}

#[test]
fn a_slot_is_free_when_the_socket_has_ended() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    assert_eq!(bed.state.free(ann, Cause::SocketEnded).map(|client| client.id.len()), Some(22));
    assert!(bed.state.free(ann, Cause::SocketEnded).is_none());
    assert_eq!(bed.client("ben"), ann, "the slot is used again");
}

#[test]
fn the_id_of_a_negotiated_connection_stays_closed() {
    let mut bed = Testbed::new();
    let (ann, routes) = (bed.client("ann"), bed.state.context.shared.routes.clone());
    bed.state.connections.get_mut(ann).unwrap().is_negotiated = true;
    bed.state.close(ann, &CloseReason::drained());
    assert_eq!(routes.reserve(&whole_id("ann")), Err(ReserveError::Unknown));
}

#[test]
fn a_client_closes_with_its_token() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    bed.state.token_expiries.set(ann, unix_seconds() - 1);
    bed.state.token_expiries.set(ben, unix_seconds() + 1000);
    bed.state.advance();
    assert!(bed.state.connections.live(ann).is_none() && bed.state.connections.live(ben).is_some());
}

#[test]
fn a_silent_client_gets_keep_alives() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    (0..14).for_each(|_| bed.state.advance());
    assert_eq!(bed.received(ann), [""; 0]);
    bed.state.advance();
    assert_eq!(bed.received(ann), [r#"{"type":6};"#]);
}

#[test]
fn the_largest_outboxes_close_when_all_together_are_over_the_budget() {
    let mut bed = Testbed::with(|settings| settings.outbox.total_bytes = 10_000);
    let (small, large) = (bed.client("ann"), bed.client("ben"));
    bed.state.send_frame(small, &Bytes::from(vec![0; 3000]));
    assert!(bed.state.connections.live(small).is_some());
    bed.state.send_frame(large, &Bytes::from(vec![0; 8000]));
    assert!(bed.state.connections.live(large).is_none() && bed.state.connections.live(small).is_some());
}

#[test]
fn a_drain_closes_the_clients_that_are_due_and_then_all() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let everyone = bed.state.connections.everyone();
    let mut schedule = DrainSchedule::new(everyone, Duration::from_secs(10), || 0.0);
    bed.state.leave_due(&mut schedule, (Instant::now(), Duration::ZERO));
    assert!(bed.state.connections.live(ann).is_none() && bed.state.connections.live(ben).is_some());
    assert!(!bed.state.is_drained());
    bed.state.close_all_drained();
    assert!(bed.state.connections.live(ben).is_none() && bed.state.is_drained());
}

#[test]
fn the_read_buffer_is_lent_and_used_again() {
    let mut bed = Testbed::new();
    let buffer = bed.state.lend_read_buffer();
    let at = buffer.as_ptr();
    assert_eq!(buffer.len(), READ_BUFFER_BYTES);
    bed.state.return_read_buffer(buffer);
    let again = bed.state.lend_read_buffer();
    assert_eq!(again.as_ptr(), at);
}
