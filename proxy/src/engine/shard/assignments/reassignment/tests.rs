//! Tests for the reassignment of clients with a lost primary, and for undelivered close notices.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::MessageKind;
use trunkline_protocol::manifest::{CAUSE_HEADER, ENDED_HEADER};
use trunkline_protocol::service::{FlowOperation, ServiceMessage};
use trunkline_protocol::wire::ITEMS_HEADER;

use super::*;
use crate::engine::shard::connection::{ClientOrigin, LifeCycle, PauseReason, moved_to};
use crate::engine::shard::content::Content;
use crate::engine::shard::drain::server_rebalance::read_on;
use crate::engine::shard::testbed::{Testbed, sent_over, whole_id};
use crate::engine::upstream::LinkHandle;

fn loss(link: &HomeLink, pending_closes: Vec<ByteString>) -> LinkLoss {
    LinkLoss {
        link: link.id,
        cause: Cause::LinkLost,
        noticed_within_s: 0,
        may_be_unnoticed: false,
        is_goodbye: false,
        pending_closes,
    }
}

/// Client at an app server with a lost link.
fn unassigned_client(bed: &mut Testbed) -> Slot {
    let (pool, home) = bed.app_server("old");
    let slot = bed.client_at("ann", &home);
    pool.lost(0);
    bed.state.core.begin_call(slot, "1", MessageKind::Invocation);
    bed.state.lose_homes(&loss(&home, Vec::new()));
    bed.end_step();
    slot
}

fn is_unassigned(bed: &Testbed, slot: Slot) -> bool {
    let client = bed.state.core.connections.get(slot).unwrap();
    assert_eq!(client.is_unassigned(), client.pauses().contains(PauseReason::Unassigned));
    client.is_unassigned()
}

#[test]
fn a_client_without_a_home_is_paused_and_its_calls_fail() {
    let mut bed = Testbed::new();
    let slot = unassigned_client(&mut bed);
    assert!(is_unassigned(&bed, slot));
    let received = bed.received(slot);
    assert!(received[0].contains("\"error\":\"The app server that ran this call is gone"), "{received:?}");
}

#[test]
fn the_next_opened_link_takes_the_waiting_clients() {
    let mut bed = Testbed::new();
    let slot = unassigned_client(&mut bed);
    let (_, home) = bed.app_server("new");
    bed.state.link_opened(&home);
    assert!(!is_unassigned(&bed, slot));
    assert_eq!(bed.state.core.connections.get(slot).unwrap().home().id, home.id);
    assert_eq!(bed.state.core.context.counters.rehomed.get(), 1);
}

#[test]
fn a_client_that_comes_back_over_another_socket_still_waits_for_an_app_server() {
    let mut bed = Testbed::new();
    let slot = unassigned_client(&mut bed);
    let serial = bed.state.core.connections.next_serial();
    bed.state.core.connections.get_mut(slot).unwrap().change_serial(serial);
    bed.advance();
    let (_, home) = bed.app_server("new");
    bed.state.link_opened(&home);
    assert!(!is_unassigned(&bed, slot));
}

#[test]
fn a_client_that_waits_for_too_long_is_asked_to_reconnect() {
    let mut bed = Testbed::with(|settings| settings.rehoming.hold_timeout_s = 3);
    let slot = unassigned_client(&mut bed);
    bed.received(slot);
    bed.advance();
    bed.advance();
    assert_eq!(bed.received(slot), [""; 0]);
    bed.advance();
    assert_eq!(bed.received(slot), [r#"{"type":7,"allowReconnect":true};"#, "close"]);
}

#[test]
fn a_returning_app_server_is_notified_once_of_clients_that_moved_away() {
    let mut bed = Testbed::new();
    let slot = unassigned_client(&mut bed);
    let (_, home) = bed.app_server("new");
    let was_at = bed.state.core.connections.get(slot).unwrap().home().app;
    let mut moves = Reassignment::new(10_000, 30, Arc::default());
    bed.state.core.tick = 100;
    moves.assign_or_wait(&mut bed.state.core, slot, &Role::Home);
    assert_eq!(moves.unassigned().count(), 0);
    assert_eq!(moves.take_moved_away(home.hub(), home.app), []);
    moves.evict_old_moves(100 + moved_remembered_s(10_000) - 1);
    assert_eq!(moves.take_moved_away(home.hub(), was_at), [(whole_id("ann").into(), home.app)]);
    assert_eq!(moves.take_moved_away(home.hub(), was_at), []);
}

#[test]
fn an_app_server_that_handed_a_client_over_is_not_notified_of_its_move() {
    let mut bed = Testbed::new();
    let slot = unassigned_client(&mut bed);
    let _new = bed.app_server("new");
    let client = bed.state.core.connections.get_mut(slot).unwrap();
    let was_at = client.home().app;
    let hub = client.home().hub();
    let home = client.assignments_mut().of_mut(&Role::Home).unwrap();
    home.ask_to_hand_over();
    assert!(home.hand_over(None));
    let mut moves = Reassignment::new(10_000, 30, Arc::default());
    moves.assign_or_wait(&mut bed.state.core, slot, &Role::Home);
    assert_eq!(moves.unassigned().count(), 0);
    assert_eq!(moves.take_moved_away(hub, was_at), [], "a late notice could close it after its return");
}

#[test]
fn a_client_that_returns_over_the_new_link_is_not_reported_as_moved() {
    let mut bed = Testbed::new();
    let slot = unassigned_client(&mut bed);
    let (hub, was_at) = {
        let home = bed.state.core.connections.get(slot).unwrap().home();
        (home.hub(), home.app)
    };
    let (_, elsewhere) = bed.app_server("new");
    bed.state.assignments.reassignment.moved_away(hub, (elsewhere.app, was_at), &whole_id("ann"), 0);
    bed.state.link_opened(&elsewhere);
    assert!(!is_unassigned(&bed, slot));
    let sent = sent_over(&elsewhere);
    assert!(!sent.iter().any(|frame| matches!(frame, ServiceMessage::CloseConnection(_))), "{sent:?}");
}

/// Close notices in these frames: id, cause, and whether the recipient never had the connection.
fn ends(frames: &[ServiceMessage]) -> Vec<(String, String, bool)> {
    let header = |headers: &[(ByteString, Vec<ByteString>)], wanted: &str| {
        headers.iter().find(|(name, _)| name == wanted).map(|(_, values)| values[0].to_string())
    };
    let ends = frames.iter().filter_map(|frame| match frame {
        ServiceMessage::OpenConnection(open) => {
            Some((open.connection_id.to_string(), header(&open.headers, ENDED_HEADER)?, true))
        }
        ServiceMessage::CloseConnection(close) => {
            Some((close.connection_id.to_string(), header(&close.headers, CAUSE_HEADER)?, false))
        }
        _ => None,
    });
    ends.collect()
}

fn end(id: &str, is_news: bool) -> (String, String, bool) {
    (whole_id(id), "socket_ended".into(), is_news)
}

#[test]
fn the_close_of_a_client_without_an_app_server_is_sent_once_to_the_next_one() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.app_server("old");
    let ann = bed.client_at("ann", &old);
    bed.hub.remove_pool(&pool);
    old.outbox().close_outbox();
    bed.state.lose_homes(&loss(&old, Vec::new()));
    bed.state.free(ann, Cause::SocketEnded);
    bed.advance();
    let (_, next) = bed.app_server("next");
    bed.state.link_opened(&next);
    bed.state.link_opened(&next);
    bed.advance();
    assert_eq!(ends(&sent_over(&next)), [end("ann", true)]);
    assert_eq!(bed.state.core.context.counters.ends_passed_on.get(), 1);
}

#[test]
fn a_close_goes_only_to_an_app_server_that_may_be_alive() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.app_server("old");
    let ann = bed.client_at("ann", &old);
    pool.lost(0);
    old.outbox().close_outbox();
    bed.state.lose_homes(&loss(&old, Vec::new()));
    bed.state.free(ann, Cause::SocketEnded);
    let (_, other) = bed.app_server("other");
    bed.state.link_opened(&other);
    let again = Arc::new(LinkHandle::opened(&bed.hub.identity, old.app));
    pool.opened(0, again.clone());
    bed.state.link_opened(&again);
    bed.advance();
    assert_eq!(ends(&sent_over(&again)), [end("ann", false)]);
    assert_eq!(ends(&sent_over(&other)), []);
}

#[test]
fn a_notice_lost_with_its_link_is_sent_again_and_a_delivered_one_is_not() {
    let mut bed = Testbed::new();
    let (pool, old) = bed.app_server("old");
    let (ann, ben) = (bed.client_at("ann", &old), bed.client_at("ben", &old));
    bed.state.free(ann, Cause::SocketEnded);
    bed.state.free(ben, Cause::SocketEnded);
    bed.hub.remove_pool(&pool);
    bed.state.lose_homes(&loss(&old, vec![whole_id("ann").into()]));
    let (_, next) = bed.app_server("next");
    bed.state.link_opened(&next);
    assert_eq!(ends(&sent_over(&next)), [end("ann", true)]);
}

#[test]
fn an_app_server_that_released_or_never_opened_a_client_gets_no_notice() {
    let mut bed = Testbed::new();
    let (_, old) = bed.app_server("old");
    let (ann, ben) = (bed.client_at("ann", &old), bed.client_at("ben", &old));
    *bed.state.core.connections.get_mut(ben).unwrap().life_mut() = LifeCycle::default();
    bed.state.free(ann, Cause::SocketEnded);
    bed.state.free(ben, Cause::SocketEnded);
    // The handover of ann crossed with her close notice.
    bed.state.handed_over(old.hub(), old.app, &whole_id("ann"));
    bed.state.lose_homes(&loss(&old, vec![whole_id("ben").into()]));
    // Only this app server is available, so it receives the notice for ann again.
    assert_eq!(ends(&sent_over(&old)), [end("ann", false), end("ben", false), end("ann", true)]);
}

#[test]
fn an_undeliverable_close_notice_is_dropped_and_counted() {
    let mut bed = Testbed::with(|settings| settings.rehoming.hold_timeout_s = 3);
    let (pool, old) = bed.app_server("old");
    let ann = bed.client_at("ann", &old);
    bed.hub.remove_pool(&pool);
    old.outbox().close_outbox();
    bed.state.lose_homes(&loss(&old, Vec::new()));
    bed.state.free(ann, Cause::SocketEnded);
    for _ in 0..moved_remembered_s(bed.state.core.context.shared.settings.links.resume_window_ms) + 3 {
        assert_eq!(bed.state.core.context.counters.ends_lost.get(), 0);
        bed.advance();
    }
    assert_eq!(bed.state.core.context.counters.ends_lost.get(), 1);
}

#[test]
fn a_raw_client_that_was_handed_over_for_a_link_that_is_lost_by_then_waits_with_its_items() {
    let mut bed = Testbed::new();
    let (_, old) = bed.app_server("old");
    let ann = bed.client_of("ann", &old, Content::Raw);
    let client = bed.state.core.connections.get_mut(ann).unwrap();
    client.cold_mut().set_origin(ClientOrigin { is_movable: true, ..ClientOrigin::default() });
    client.assignments_mut().home_mut().ask_to_hand_over();
    assert!(client.assignments_mut().home_mut().hand_over(Some("mine".into())));
    let lost = Arc::new(LinkHandle::opened(&bed.hub.identity, AppServerId::from(9)));
    lost.outbox().close_outbox();
    bed.hub.pools().iter().for_each(|pool| bed.hub.remove_pool(pool));
    bed.state.reassign_to(ann, &lost);
    assert!(is_unassigned(&bed, ann));
    // Losing its former link has no effect either.
    bed.state.lose_homes(&loss(&old, Vec::new()));
    let (_, next) = bed.app_server("next");
    bed.state.link_opened(&next);
    let sent = sent_over(&next);
    let [ServiceMessage::OpenConnection(open)] = &sent[..] else { panic!("it is opened once: {sent:?}") };
    assert!(open.headers.iter().any(|(name, values)| name == ITEMS_HEADER && values[..] == ["mine"]), "{open:?}");
}

#[test]
fn a_client_that_is_asked_for_something_is_read_on_while_it_leaves() {
    let mut bed = Testbed::new();
    let (_, old) = bed.app_server("old");
    let ann = bed.client_at("ann", &old);
    let is_paused = |bed: &Testbed| !bed.state.core.connections.get(ann).unwrap().pauses().is_empty();
    read_on(&mut bed.state, ann);
    bed.state.core.control(ann, &Role::Home, FlowOperation::EndInput);
    assert!(!is_paused(&bed), "it does not leave");
    bed.state.app_shutting_down(old.hub(), old.app);
    assert!(is_paused(&bed));
    read_on(&mut bed.state, ann);
    assert!(!is_paused(&bed));
    bed.state.core.control(ann, &Role::Home, FlowOperation::EndInput);
    assert!(is_paused(&bed));
    let asked = sent_over(&old).iter().filter(|frame| **frame == moved_to(&whole_id("ann"), "")).count();
    assert_eq!(asked, 2, "once more, behind all that it has sent");
}
