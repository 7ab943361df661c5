//! Tests for rebalancing between app servers.

use trunkline_protocol::hub::MessageKind;

use super::*;
use crate::engine::shard::connection::{ClientOrigin, PauseReason};
use crate::engine::shard::drain::rebalance_order::RebalanceCount;
use crate::engine::shard::testbed::{Testbed, sent_over, whole_id};
use crate::engine::upstream::LinkHandle;

/// Clients found for an order between two app servers.
fn found(bed: &Testbed, (from, to): (&HomeLink, &HomeLink)) -> Vec<Slot> {
    let order = RebalanceOrder { hub: from.hub(), from: from.app, to: to.app, clients: 9 };
    let mut search = rebalance_search(&order);
    while !step_rebalance_search(&bed.state.core, &order, &mut search) {}
    let mut slots: Vec<_> = search.chosen().into_iter().map(|(slot, _)| slot).collect();
    slots.sort_unstable();
    slots
}

fn rebalance_all(bed: &mut Testbed, (from, to): (&HomeLink, &HomeLink)) {
    let order = RebalanceOrder { hub: from.hub(), from: from.app, to: to.app, clients: 9 };
    found(bed, (from, to)).into_iter().for_each(|slot| rebalance_due(&mut bed.state, slot, &order));
}

fn count(bed: &Testbed, link: &HomeLink) -> RebalanceCount {
    bed.state
        .server_rebalance
        .rebalance_counts(bed.state.core.connections.census())
        .get(&(link.hub(), link.app))
        .copied()
        .unwrap_or_default()
}

#[test]
fn only_who_is_open_there_idle_and_free_to_go_is_chosen() {
    let mut bed = Testbed::new();
    let ((_, old), (_, new)) = (bed.app_server("old"), bed.app_server("new"));
    let [idle, busy, bound, leaving, paused] =
        ["idle", "busy", "bound", "leaving", "paused"].map(|id| bed.client_at(id, &old));
    bed.client_at("elsewhere", &new);
    bed.state.core.begin_call(busy, "1", MessageKind::Invocation);
    let origin = ClientOrigin { is_bound: true, ..ClientOrigin::default() };
    bed.state.core.connections.live_mut(bound).unwrap().cold_mut().set_origin(origin);
    bed.state.core.connections.live_mut(leaving).unwrap().assignments_mut().home_mut().ask_to_hand_over();
    bed.state.core.connections.live_mut(paused).unwrap().pauses_mut().add_reason(PauseReason::AppServer);
    assert_eq!(found(&bed, (&old, &new)), [idle]);
}

#[test]
fn an_app_server_without_hand_overs_is_not_asked() {
    let mut bed = Testbed::new();
    let (pool, _) = bed.app_server("old");
    let (_, new) = bed.app_server("new");
    let old = std::sync::Arc::new(LinkHandle::opened_without_handovers(&bed.hub.identity, pool.app.id));
    pool.opened(0, old.clone());
    bed.client_at("ann", &old);
    assert_eq!(found(&bed, (&old, &new)), [0; 0]);
}

#[test]
fn a_requested_client_counts_as_leaving_until_it_has_moved_or_stays() {
    let mut bed = Testbed::new();
    let ((_, old), (_, new)) = (bed.app_server("old"), bed.app_server("new"));
    let [ann, ben] = ["ann", "ben"].map(|id| bed.client_at(id, &old));
    rebalance_all(&mut bed, (&old, &new));
    assert_eq!(count(&bed, &old), RebalanceCount { present: 2, going: 2, coming: 0 });
    assert_eq!(count(&bed, &new), RebalanceCount { present: 0, going: 0, coming: 2 });
    read_on(&mut bed.state, ann);
    bed.state.hand_over(ben, &Role::Home, &[]);
    assert_eq!(count(&bed, &old), RebalanceCount { present: 1, going: 0, coming: 0 });
    assert_eq!(count(&bed, &new), RebalanceCount { present: 1, going: 0, coming: 0 });
    let is_read = |slot| bed.state.core.connections.get(slot).unwrap().pauses().is_empty();
    assert!(is_read(ann) && is_read(ben));
    assert_eq!(bed.state.core.context.counters.app_rebalanced.get(), 1);
    let asked = sent_over(&old);
    assert_eq!(asked.len(), 2);
    assert!(["ann", "ben"].iter().all(|id| asked.contains(&ask_if_idle(&whole_id(id)))), "{asked:?}");
}

#[test]
fn a_client_that_loses_its_app_server_meanwhile_is_removed() {
    let mut bed = Testbed::new();
    let ((pool, old), (_, new)) = (bed.app_server("old"), bed.app_server("new"));
    let ann = bed.client_at("ann", &old);
    rebalance_all(&mut bed, (&old, &new));
    pool.lost(0);
    bed.state.lose_home(ann, trunkline_protocol::cause::Cause::LinkLost);
    bed.advance();
    assert_eq!(count(&bed, &new), RebalanceCount { present: 1, going: 0, coming: 0 });
    assert_eq!(bed.state.core.context.counters.app_rebalanced.get(), 0, "it had to go anyway");
}

#[test]
fn by_dial_in_a_silent_client_moves_immediately() {
    let mut bed = Testbed::new();
    let ((_, old), (_, new)) = (bed.dialled_in_server("old", 1), bed.dialled_in_server("new", 1));
    let (ann, ben) = (bed.client_at("ann", &old[0]), bed.client_at("ben", &old[0]));
    assert_eq!(found(&bed, (&old[0], &new[0])), [0; 0], "what they have sent may still be worked on");
    (0..SILENT_TICKS).for_each(|_| bed.advance());
    bed.state.core.begin_call(ben, "1", MessageKind::Invocation);
    rebalance_all(&mut bed, (&old[0], &new[0]));
    let home = |slot| bed.state.core.connections.get(slot).unwrap().home().id;
    assert!(home(ann) == new[0].id && home(ben) == old[0].id);
    assert_eq!(sent_over(&old[0]), [moved_to(&whole_id("ann"), "new")]);
    let opened: Vec<_> = sent_over(&new[0]).iter().map(ServiceMessage::name).collect();
    assert_eq!(opened, ["OpenConnection", "ConnectionData"]);
    assert_eq!(bed.state.core.context.counters.app_rebalanced.get(), 1);
}
