//! Tests for handovers of clients of dialled-in app servers.

use trunkline_protocol::hub::MessageKind;
use trunkline_protocol::service::ServiceMessage;

use trunkline_protocol::cause::Cause;

use super::*;
use crate::engine::shard::command::LinkLoss;
use crate::engine::shard::moving::reconnect::sever;
use crate::engine::shard::testbed::{Testbed, sent_over};

fn is_read(bed: &Testbed, slot: Slot) -> bool {
    bed.state.core.connections.get(slot).unwrap().pauses().is_empty()
}

fn home(bed: &Testbed, slot: Slot) -> crate::engine::upstream::LinkId {
    bed.state.core.connections.get(slot).unwrap().home().id
}

#[test]
fn an_idle_client_goes_to_another_app_server_at_once_and_one_with_a_call_when_that_has_ended() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.dialled_in_server("old", 1);
    let (_, next) = bed.dialled_in_server("next", 1);
    let (idle, busy) = (bed.client_at("ann", &old[0]), bed.client_at("ben", &old[0]));
    bed.state.core.begin_call(busy, "1", MessageKind::Invocation);
    assert!(pool.begin_drain());
    reassign_all(&mut bed.state, old[0].hub(), old[0].app);
    assert!(home(&bed, idle) == next[0].id && is_read(&bed, idle));
    assert!(home(&bed, busy) == old[0].id && !is_read(&bed, busy), "its call runs on");
    let answer = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";
    bed.data("ben", busy, old[0].app, answer);
    assert!(home(&bed, busy) == next[0].id && is_read(&bed, busy));
    assert_eq!(bed.received(busy), ["{\"type\":3,\"invocationId\":\"1\",\"result\":2};"]);
    let told: Vec<_> = sent_over(&old[0]).iter().map(ServiceMessage::name).collect();
    assert_eq!(told, ["CloseConnection", "CloseConnection"]);
    let opened: Vec<_> = sent_over(&next[0]).iter().map(ServiceMessage::name).collect();
    assert_eq!(opened, ["OpenConnection", "ConnectionData", "OpenConnection", "ConnectionData"]);
}

#[test]
fn a_call_without_end_is_answered_with_an_error_in_the_end() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.dialled_in_server("old", 1);
    let (_, next) = bed.dialled_in_server("next", 1);
    let slot = bed.client_at("ann", &old[0]);
    bed.state.core.begin_call(slot, "1", MessageKind::Invocation);
    assert!(pool.begin_drain());
    reassign_all(&mut bed.state, old[0].hub(), old[0].app);
    (1..HAND_OVER_TICKS).for_each(|_| bed.advance());
    assert_eq!(home(&bed, slot), old[0].id);
    assert!(is_read(&bed, slot), "the call may wait for something of its client");
    bed.advance();
    assert_eq!(home(&bed, slot), next[0].id);
    assert!(bed.received(slot)[0].contains("was stopped before the call had ended"));
}

#[test]
fn a_client_that_loses_its_socket_meanwhile_is_handed_over_in_time() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.dialled_in_server("old", 1);
    let (_, next) = bed.dialled_in_server("next", 1);
    let slot = bed.client_at("ann", &old[0]);
    bed.make_resumable(slot);
    bed.state.core.begin_call(slot, "1", MessageKind::Invocation);
    assert!(pool.begin_drain());
    reassign_all(&mut bed.state, old[0].hub(), old[0].app);
    sever(&mut bed.state, slot, Cause::SocketEnded);
    (0..HAND_OVER_TICKS).for_each(|_| bed.advance());
    assert_eq!(home(&bed, slot), next[0].id);
}

#[test]
fn the_goodbye_of_an_app_server_that_stops_is_not_passed_on_and_what_it_says_later_counts_no_more() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.dialled_in_server("old", 1);
    let (_, next) = bed.dialled_in_server("next", 1);
    let slot = bed.client_at("ann", &old[0]);
    bed.state.core.begin_call(slot, "1", MessageKind::Invocation);
    assert!(pool.begin_drain());
    reassign_all(&mut bed.state, old[0].hub(), old[0].app);
    bed.data("ann", slot, old[0].app, "{\"type\":7,\"allowReconnect\":true}\u{1e}");
    assert_eq!(home(&bed, slot), next[0].id);
    bed.close("ann", slot, old[0].app);
    assert!(bed.state.core.connections.get(slot).unwrap().life().is_open());
    assert!(bed.received(slot).iter().all(|message| message.contains("the call had ended")));
    bed.close("ann", slot, next[0].app);
    assert!(bed.state.core.connections.get(slot).unwrap().life().is_closed());
}

#[test]
fn without_another_app_server_clients_stay_where_they_are() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.dialled_in_server("old", 1);
    let slot = bed.client_at("ann", &old[0]);
    assert!(pool.begin_drain());
    reassign_all(&mut bed.state, old[0].hub(), old[0].app);
    assert!(home(&bed, slot) == old[0].id && is_read(&bed, slot));
}

#[test]
fn a_client_whose_link_is_lost_waits_until_its_app_server_knows_or_is_gone() {
    let mut bed = Testbed::new();
    let (pool, links) = bed.dialled_in_server("app", 2);
    let slot = bed.client_at("ann", &links[0]);
    let loss = |link: &HomeLink| LinkLoss {
        link: link.id,
        cause: Cause::LinkLost,
        noticed_within_s: 2,
        may_be_unnoticed: false,
        is_goodbye: true,
        pending_closes: Vec::new(),
    };
    pool.remove(&links[0]);
    bed.state.lose_homes(&loss(&links[0]));
    bed.advance();
    assert!(!is_read(&bed, slot) && home(&bed, slot) == links[0].id, "it would be taken for the old one");
    bed.advance();
    assert!(is_read(&bed, slot) && home(&bed, slot) == links[1].id);
    pool.remove(&links[1]);
    bed.state.lose_homes(&loss(&links[1]));
    let (_, next) = bed.dialled_in_server("next", 1);
    bed.state.link_opened(&next[0]);
    assert!(is_read(&bed, slot) && home(&bed, slot) == next[0].id, "nobody is waited for who is gone");
}

#[test]
fn a_link_that_opens_gets_its_share_and_nothing_is_sent_between_pause_and_resume() {
    let mut bed = Testbed::new();
    let (pool, links) = bed.dialled_in_server("app", 1);
    let slots: Vec<_> = (0..4).map(|number| bed.client_at(&format!("c{number}"), &links[0])).collect();
    let new = bed.dial_in_link(&pool, "app");
    rebalance_links(&mut bed.state, &new);
    let moving: Vec<_> = slots.iter().copied().filter(|&slot| !is_read(&bed, slot)).collect();
    assert_eq!(moving.len(), 1, "a client more or less is no reason to move");
    assert_eq!(home(&bed, moving[0]), links[0].id);
    bed.state.pause_acknowledged(moving[0], new.id);
    assert!(!is_read(&bed, moving[0]), "the old link may send still");
    bed.state.pause_acknowledged(moving[0], links[0].id);
    assert!(home(&bed, moving[0]) == new.id && is_read(&bed, moving[0]));
    let names = |link: &HomeLink| sent_over(link).iter().map(ServiceMessage::name).collect::<Vec<_>>();
    assert_eq!((names(&links[0]), names(&new)), (vec!["ConnectionFlowControl"], vec!["ConnectionFlowControl"]));
}

#[test]
fn a_move_that_is_not_acknowledged_is_given_up() {
    let mut bed = Testbed::new();
    let (pool, links) = bed.dialled_in_server("app", 1);
    let slot = bed.client_at("ann", &links[0]);
    let _other = bed.dial_in_link(&pool, "app");
    leave_link(&mut bed.state, &links[0]);
    assert!(!is_read(&bed, slot));
    (0..HAND_OVER_TICKS).for_each(|_| bed.advance());
    assert!(is_read(&bed, slot) && home(&bed, slot) == links[0].id);
    bed.state.pause_acknowledged(slot, links[0].id);
    assert_eq!(home(&bed, slot), links[0].id, "it comes too late");
    leave_link(&mut bed.state, &links[0]);
    assert!(is_read(&bed, slot), "nobody could tell two answers apart");
}
