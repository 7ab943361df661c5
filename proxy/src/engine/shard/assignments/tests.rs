//! Tests for closed client connections, keep-alives, and the total outbox budget.

use super::*;
use crate::engine::shard::ReserveError;
use crate::engine::shard::connection::{ClientTraits, Liveness, SetName};
use crate::engine::shard::testbed::{Testbed, whole_id};
use crate::ground::clock::unix_seconds;

#[test]
fn a_close_happens_once_and_leaves_nothing_to_find() {
    let mut bed = Testbed::new();
    let (ann, hub) = (bed.client("ann"), bed.hub.index());
    bed.state.close_client(ann, &CloseReason::reconnect(Cause::Drained));
    bed.state.close_client(ann, &CloseReason::timed_out());
    assert_eq!(bed.received(ann), [r#"{"type":7,"allowReconnect":true};"#, "close"]);
    assert!(bed.state.core.connections.members(hub, SetName::Hub).is_empty());
    assert_eq!(bed.state.core.connections.find(hub, &whole_id("ann")), None);
    assert_eq!(bed.state.core.context.counters.hub(hub.get()).closed.total(), 1);
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
    let (ann, routes) = (bed.client("ann"), bed.state.core.context.shared.routes.clone());
    let traits = ClientTraits { is_negotiated: true, ..ClientTraits::default() };
    bed.state.core.connections.get_mut(ann).unwrap().set_traits(traits, Liveness::default());
    bed.state.close_client(ann, &CloseReason::reconnect(Cause::Drained));
    assert_eq!(routes.reserve(&whole_id("ann")), Err(ReserveError::Unknown));
}

#[test]
fn a_client_closes_with_its_token() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    bed.state.assignments.token_expiries.set(ann, unix_seconds() - 1);
    bed.state.assignments.token_expiries.set(ben, unix_seconds() + 1000);
    bed.advance();
    assert!(bed.state.core.connections.live(ann).is_none() && bed.state.core.connections.live(ben).is_some());
}

#[test]
fn a_silent_client_gets_keep_alives() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    (0..15).for_each(|_| bed.advance());
    assert_eq!(bed.received(ann), [""; 0]);
    bed.advance();
    assert_eq!(bed.received(ann), [r#"{"type":6};"#]);
}

#[test]
fn the_largest_outboxes_close_when_all_together_are_over_the_budget() {
    let mut bed = Testbed::with(|settings| settings.outbox.total_bytes = 10_000);
    let (small, large) = (bed.client("ann"), bed.client("ben"));
    bed.state.core.send_transport(small, &Bytes::from(vec![0; 3000]));
    bed.end_step();
    assert!(bed.state.core.connections.live(small).is_some());
    bed.state.core.send_transport(large, &Bytes::from(vec![0; 8000]));
    bed.end_step();
    assert!(bed.state.core.connections.live(large).is_none() && bed.state.core.connections.live(small).is_some());
}
