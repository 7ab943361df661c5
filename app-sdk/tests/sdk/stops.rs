//! Tests that planned stops of app servers behind a real node fail no call, and lose no message of movable raw
//! endpoints.

mod away_link;
mod caller;
mod cut_relay;
mod feeder;
mod rolling_fleet;

use caller::{Callers, Habit};
use feeder::Feeders;
use rolling_fleet::RollingFleet;

/// Number of planned stops, alternating between the two app servers.
const STOPS: usize = 6;

/// Answered calls before each stop and after the last one.
const CALLS_BETWEEN: usize = 600;

/// Clients call continuously while these app servers are replaced in turn. No call may fail.
async fn assert_stops_fail_no_call(clients: usize, habits: &[Habit], turns: [&[usize]; 2]) {
    let mut fleet = RollingFleet::start().await;
    let callers = Callers::start(fleet.address(), clients, habits);
    for stop in 0..STOPS {
        callers.answered(CALLS_BETWEEN).await;
        fleet.replace(turns[stop % 2]).await;
    }
    callers.answered(CALLS_BETWEEN).await;
    let (answered, failures) = callers.stop().await;
    let (failed, closes) = (failures.len(), fleet.closes().await);
    assert!(failures.is_empty(), "{failed} failed, {answered} did not: {failures:#?}\ncloses: {closes:#?}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn planned_stops_fail_no_short_call() {
    // All app servers stop simultaneously, and so do the links.
    assert_stops_fail_no_call(200, &[Habit::Echo, Habit::Echo, Habit::Echo, Habit::Visit], [&[0], &[1]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn planned_stops_fail_no_call_that_lasts_and_no_stream() {
    let habits = [Habit::Work(5), Habit::Work(700), Habit::Download, Habit::Upload, Habit::Answer, Habit::Visit];
    assert_stops_fail_no_call(60, &habits, [&[0], &[1]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_wait_while_all_app_servers_are_replaced() {
    let habits = [Habit::Echo, Habit::Work(5), Habit::Download, Habit::Upload, Habit::Answer];
    assert_stops_fail_no_call(60, &habits, [&[0, 1], &[1, 0]]).await;
}

/// Raw clients exchange numbers continuously while these app servers are replaced in turn.
async fn assert_stops_cost_no_raw_message(turns: [&[usize]; 2]) {
    let mut fleet = RollingFleet::start().await;
    let feeders = Feeders::start(fleet.address(), 50).await;
    for stop in 0..STOPS {
        feeders.echoed(CALLS_BETWEEN).await;
        fleet.replace(turns[stop % 2]).await;
    }
    feeders.echoed(CALLS_BETWEEN).await;
    let (echoed, failures) = feeders.stop().await;
    let (failed, closes) = (failures.len(), fleet.closes().await);
    assert!(failures.is_empty(), "{failed} failed, {echoed} did not: {failures:#?}\ncloses: {closes:#?}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn planned_stops_cost_raw_clients_nothing_where_they_move() {
    assert_stops_cost_no_raw_message([&[0], &[1]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn raw_clients_wait_while_all_app_servers_are_replaced() {
    assert_stops_cost_no_raw_message([&[0, 1], &[1, 0]]).await;
}
