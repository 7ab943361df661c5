//! Presence events for back ends: `online` and `offline` of users, over one node and a fleet.

use std::collections::BTreeSet;
use std::time::Duration;

use bytestring::ByteString;
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::client::Client;
use super::fixture::{Fixture, paused, token_of};
use super::fleet_nodes::{FleetNode, linked, peers};
use super::webhook_server::{Asked, WebhookServer};
use super::webhooks::{APP, connect, fixture};
use crate::features::webhook::{HubUser, Reported};
use crate::fleet::Fleet;
use crate::ground::config::{Settings, WebhookSettings};
use crate::ground::net::connector::MemoryNetwork;
use crate::node::presence_keeper;

/// Time after which a pending event must have been sent.
const LONG: Duration = Duration::from_secs(40);

fn present() -> WebhookSettings {
    let rules = vec!["room=http://app.example:5000/{hub}/{category}/{event}".parse().unwrap()];
    WebhookSettings { rules, has_presence: true, ..WebhookSettings::DEFAULT }
}

fn keep(fixture: &Fixture, fleet: &Fleet) -> AbortHandle {
    tokio::spawn(presence_keeper::run(fixture.shared.clone(), fixture.webhooks.clone(), fleet.clone())).abort_handle()
}

fn alone() -> (Fixture, WebhookServer) {
    let network = MemoryNetwork::default();
    let fixture = fixture(&network, present());
    keep(&fixture, &fixture.fleet());
    (fixture, WebhookServer::listen(&network, APP))
}

async fn node(network: &MemoryNetwork, number: u8) -> (FleetNode, AbortHandle) {
    let settings = Settings { webhooks: present(), ..peers(&[1, 2]) };
    let node = FleetNode::start(network, number, settings).await;
    let keeper = keep(&node.fixture, &node.fleet);
    (node, keeper)
}

async fn enter(fixture: &Fixture, user: &str) -> Client {
    connect(fixture, &format!("/room?access_token={}", token_of(user))).await
}

/// Next event about a user. Events of connections are accepted.
async fn next(server: &mut WebhookServer) -> Asked {
    loop {
        let asked = server.next().await;
        if asked.path().starts_with("/room/users/") {
            return asked;
        }
        asked.answer(204, "");
    }
}

/// Accepts the events about users within this time, and returns them as `event user`.
async fn seen(server: &mut WebhookServer, within: Duration) -> Vec<String> {
    let (mut seen, end) = (Vec::new(), Instant::now() + within);
    while let Ok(asked) = tokio::time::timeout_at(end, next(server)).await {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        seen.push(format!("{} {}", asked.header("x-asrs-event"), body["userId"].as_str().unwrap()));
        asked.answer(204, "");
    }
    seen
}

#[tokio::test(crate = "paused")]
async fn a_user_is_online_with_the_first_connection_and_offline_after_the_last_one() {
    let (fixture, mut server) = alone();
    let first = enter(&fixture, "ann").await;
    let online = next(&mut server).await;
    let header = |name: &str| online.header(name).to_owned();
    assert_eq!(online.path(), "/room/users/online");
    assert_eq!(["x-asrs-hub", "x-asrs-category", "x-asrs-event"].map(header), ["room", "users", "online"]);
    assert_eq!(["x-asrs-user-id", "x-asrs-connection-id"].map(header), ["ann", ""]);
    assert!(header("x-trunkline-signature").starts_with("t="));
    let body: Value = serde_json::from_slice(&online.body).unwrap();
    assert!(body["userId"] == "ann" && body["time"].as_u64().is_some_and(|time| time > 1_600_000_000_000), "{body}");
    online.answer(204, "");
    let second = enter(&fixture, "ann").await;
    let anonymous = connect(&fixture, "/room").await;
    first.close().await;
    anonymous.close().await;
    assert_eq!(seen(&mut server, LONG).await, [] as [&str; 0], "she has another connection");
    second.close().await;
    let begun = Instant::now();
    let offline = timeout(LONG, next(&mut server)).await.unwrap();
    assert_eq!((offline.path(), begun.elapsed().as_secs()), ("/room/users/offline".into(), 5));
    offline.answer(204, "");
    assert_eq!(seen(&mut server, LONG).await, [] as [&str; 0]);
}

#[tokio::test(crate = "paused")]
async fn a_reload_is_no_event_and_events_of_one_user_never_overtake_each_other() {
    let (fixture, mut server) = alone();
    let page = enter(&fixture, "ann").await;
    assert_eq!(seen(&mut server, Duration::from_secs(2)).await, ["online ann"]);
    page.close().await;
    sleep(Duration::from_secs(3)).await; // sleep: virtual time, shorter than the grace
    let page = enter(&fixture, "ann").await;
    assert_eq!(seen(&mut server, LONG).await, [] as [&str; 0]);
    page.close().await;
    let offline = timeout(LONG, next(&mut server)).await.unwrap();
    // The back end is slow, and she is back meanwhile.
    let _page = enter(&fixture, "ann").await;
    assert!(timeout(Duration::from_secs(10), next(&mut server)).await.is_err(), "offline is not answered yet");
    offline.answer(204, "");
    assert_eq!(seen(&mut server, LONG).await, ["online ann"]);
}

#[tokio::test(crate = "paused")]
async fn an_event_that_the_back_end_does_not_accept_is_repeated_with_the_latest_state() {
    let (fixture, mut server) = alone();
    let page = enter(&fixture, "ann").await;
    for _ in 0..5 {
        let online = timeout(LONG, next(&mut server)).await.unwrap();
        assert_eq!(online.header("x-asrs-event"), "online");
        online.answer(500, "");
    }
    page.close().await;
    let last = timeout(LONG, async {
        loop {
            let asked = next(&mut server).await;
            if asked.header("x-asrs-event") == "offline" {
                return asked;
            }
            asked.answer(500, "");
        }
    });
    last.await.unwrap().answer(404, "");
    assert_eq!(seen(&mut server, LONG).await, [] as [&str; 0], "a refusal is final");
}

#[tokio::test(crate = "paused")]
async fn over_a_fleet_one_node_reports_each_change_and_a_late_node_repeats_nothing() {
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let (one, two) = (node(&network, 1).await, node(&network, 2).await);
    let mut nodes = vec![one.0, two.0];
    linked(&nodes).await;
    let users: Vec<String> = (0..20).map(|number| format!("user-{number}")).collect();
    let mut tabs = Vec::new();
    for user in &users {
        tabs.push((enter(&nodes[0].fixture, user).await, enter(&nodes[1].fixture, user).await));
    }
    let sorted = |mut events: Vec<String>| {
        events.sort();
        events
    };
    let all = |event: &str| sorted(users.iter().map(|user| format!("{event} {user}")).collect());
    assert_eq!(sorted(seen(&mut server, LONG).await), all("online"));
    nodes.push(node(&network, 3).await.0);
    linked(&nodes).await;
    let mut left = Vec::new();
    for (first, second) in tabs {
        first.close().await;
        left.push(second);
    }
    assert_eq!(seen(&mut server, LONG).await, [] as [&str; 0]);
    for second in left {
        second.close().await;
    }
    assert_eq!(sorted(seen(&mut server, LONG).await), all("offline"));
    assert_eq!(seen(&mut server, 2 * LONG).await, [] as [&str; 0]);
}

/// Users who are online after these events.
fn online_after(events: &[String]) -> BTreeSet<&str> {
    let mut online = BTreeSet::new();
    for (event, user) in events.iter().filter_map(|event| event.split_once(' ')) {
        if event == "online" {
            online.insert(user)
        } else {
            online.remove(user)
        };
    }
    online
}

#[tokio::test(crate = "paused")]
async fn users_of_a_node_that_returns_after_a_split_or_a_pause_are_online_again() {
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let (one, two) = (node(&network, 1).await, node(&network, 2).await);
    let nodes = [one.0, two.0];
    linked(&nodes).await;
    let mut tabs = Vec::new();
    for number in 0..20 {
        tabs.push(enter(&nodes[number % 2].fixture, &format!("user-{number}")).await);
    }
    let mut events = seen(&mut server, LONG).await;
    assert_eq!(online_after(&events).len(), 20, "{events:?}");
    // Only this node has lost the other one.
    let lone = &nodes[1].fixture;
    let now = Instant::now();
    HubUser::presence(&lone.webhooks).unwrap().table().keep_nodes(&[ByteString::from(&*lone.shared.boot)], now);
    events.extend(seen(&mut server, LONG).await);
    assert_eq!(online_after(&events).len(), 20, "after a pause: {events:?}");
    nodes.iter().for_each(|node| node.cut(true));
    events.extend(seen(&mut server, 2 * LONG).await);
    assert!(events.iter().any(|event| event.starts_with("offline")), "{events:?}");
    nodes.iter().for_each(|node| node.cut(false));
    linked(&nodes).await;
    events.extend(seen(&mut server, 2 * LONG).await);
    assert_eq!(online_after(&events).len(), 20, "after a split: {events:?}");
}

#[tokio::test(crate = "paused")]
async fn users_of_a_killed_node_go_offline_unless_they_are_at_another_node() {
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let ((one, _keeper), (two, killed)) = (node(&network, 1).await, node(&network, 2).await);
    let nodes = [one, two];
    linked(&nodes).await;
    let (_ann, _other_ann) = (enter(&nodes[0].fixture, "ann").await, enter(&nodes[1].fixture, "ann").await);
    let _bens = [enter(&nodes[1].fixture, "ben").await, enter(&nodes[1].fixture, "ben").await];
    let mut online = seen(&mut server, 3 * LONG).await;
    online.sort();
    assert_eq!(online, ["online ann", "online ben"]);
    killed.abort();
    nodes[1].kill(&network);
    assert_eq!(seen(&mut server, 2 * LONG).await, ["offline ben"]);
}
