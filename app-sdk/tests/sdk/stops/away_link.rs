//! Tests that calls in the ring of an interrupted link are answered when the app server stops.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::caller::{CallingClient, Habit};
use super::cut_relay::{CutFrom, CutRelay};
use super::rolling_fleet::{StoppableApp, linked, start_node};

/// Number of clients. Each link of each app server gets some.
const CLIENTS: usize = 40;

/// Links that are cut, of an app server's five.
const CUT: usize = 3;

#[derive(Clone, Copy, PartialEq)]
enum End {
    Planned,
    Crash,
}

/// Clients call while links of one app server are interrupted, then this app server ends. Returns the errors of calls
/// that it did not run, and after what time.
async fn answers_of_lost_calls(end: End, window: &str, habit: Habit, from: CutFrom) -> Vec<(String, Duration)> {
    let crashing = Runtime::new().unwrap();
    let app = crashing.spawn(StoppableApp::start_hub()).await.unwrap();
    let (other, relay) = (StoppableApp::start_hub().await, CutRelay::start(app.address).await);
    let node = start_node([relay.address, other.address], &["--resume-window", window]).await;
    linked(&node, 10.0).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = CallingClient::open(node.listen()).await;
        client.call(Habit::Echo, 0).await.unwrap();
        clients.push(client);
    }
    relay.cut(from, CUT);
    // sleep: the node must detect that the links are interrupted.
    sleep(Duration::from_millis(300)).await;
    let mut calls = JoinSet::new();
    for mut client in clients {
        calls.spawn(async move { (client.call(habit, 1).await, Instant::now(), client) });
    }
    // sleep: calls over other links must be answered.
    sleep(Duration::from_millis(500)).await;
    match end {
        End::Planned => app.stop().await,
        End::Crash => drop(app),
    }
    crashing.shutdown_background();
    let ended = Instant::now();
    let mut failed = Vec::new();
    for (outcome, at, mut client) in calls.join_all().await {
        if let Err(error) = outcome {
            failed.push((error, at.saturating_duration_since(ended)));
            client.call(Habit::Echo, 2).await.unwrap();
        }
    }
    node.stop().await;
    other.stop().await;
    failed
}

async fn assert_answered((end, window): (End, &str), habit: Habit, from: CutFrom, within: Duration) {
    let answers = answers_of_lost_calls(end, window, habit, from).await;
    assert!(answers.len() >= CUT, "some clients are at home on a link that is away: {answers:?}");
    for (answer, time) in &answers {
        assert!(answer.contains("The app server that ran this call is gone"), "{answer}");
        assert!(*time < within, "{time:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_fail_immediately_when_the_app_server_of_an_interrupted_link_has_left() {
    for (habit, from) in
        [(Habit::Echo, CutFrom::Oldest), (Habit::Download, CutFrom::Latest), (Habit::Upload, CutFrom::Oldest)]
    {
        assert_answered((End::Planned, "30"), habit, from, Duration::from_secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_are_answered_after_the_window_when_the_app_server_of_a_link_that_is_away_has_crashed() {
    assert_answered((End::Crash, "2"), Habit::Echo, CutFrom::Latest, Duration::from_secs(5)).await;
}
