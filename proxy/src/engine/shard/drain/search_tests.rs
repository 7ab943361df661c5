//! Tests of the search for clients to move away, as a drain runs it.

use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::MessageKind;

use super::departure_search::*;
use crate::engine::shard::drain::leaving::LEAVE_WAIT;
use crate::engine::shard::drain::{close_leaving, leave_shed, search_for_shed};
use crate::engine::shard::moving::reconnect::sever;
use crate::engine::shard::slot::Slot;
use crate::engine::shard::testbed::Testbed;

fn search(bed: &mut Testbed, wanted: usize) -> Vec<Slot> {
    let mut search = DepartureSearch::new(wanted, bed.state.shed_from);
    while !search_for_shed(&mut bed.state, &mut search) {}
    search.chosen().into_iter().map(|(slot, _)| slot).collect()
}

#[test]
fn clients_take_turns_so_that_no_client_is_cut_every_second() {
    let mut bed = Testbed::new();
    let all: Vec<_> = (0..5).map(|number| bed.client(&format!("c{number}"))).collect();
    let rounds = [search(&mut bed, 2), search(&mut bed, 2), search(&mut bed, 2)];
    assert_eq!(rounds.concat(), [all[0], all[1], all[2], all[3], all[4], all[0]]);
    assert_eq!(search(&mut bed, 9).len(), 5);
    assert!(search(&mut bed, 0).is_empty());
}

#[test]
fn a_client_that_is_away_is_not_chosen() {
    let mut bed = Testbed::new();
    let (here, away) = (bed.client("here"), bed.client("away"));
    bed.make_resumable(away);
    sever(&mut bed.state, away, Cause::SocketEnded);
    assert_eq!(search(&mut bed, 2), [here]);
}

#[test]
fn a_client_whose_call_runs_is_shed_behind_it_and_no_other_in_its_place() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    bed.state.core.begin_call(ann, "1", MessageKind::Invocation);
    leave_shed(&mut bed.state, ann);
    assert!(bed.received(ann).is_empty());
    assert_eq!((bed.state.shed(1), bed.state.shed(3)), (0, 2));
    assert_eq!(search(&mut bed, 2), [ben], "who is about to leave is not chosen again");
}

#[test]
fn a_client_that_can_not_move_is_asked_to_reconnect() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    leave_shed(&mut bed.state, ann);
    assert!(!close_leaving(&mut bed.state, Instant::now() + LEAVE_WAIT));
    assert_eq!(bed.received(ann), ["{\"type\":7,\"allowReconnect\":true};", "close"]);
}
