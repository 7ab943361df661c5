//! A new app server receives its share of the clients: gradually, rate limited, and never during a call.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use trunkline_protocol::manifest::{HubManifest, IF_IDLE_HEADER, ITEMS_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::*;

use super::app::AppLink;
use super::client::Client;
use super::fixture::{Fixture, paused, settings};
use super::hub_message::{call, cast, flow, handed_over, header, result};
use crate::node::app_rebalancer;

/// Time within which the rebalance to a new app server starts.
const BEGUN_WITHIN: Duration = Duration::from_secs(8);

fn fixture(clients_per_s: u32, shards: u16) -> Fixture {
    let mut settings = settings();
    settings.rehoming.app_rebalance_per_s = clients_per_s;
    let fixture = Fixture::with(settings, shards);
    drop(spawn_local(app_rebalancer::run(fixture.shared.clone())));
    fixture
}

/// Receives a request to hand over a client if idle; returns the client's id.
async fn asked(link: &mut AppLink) -> String {
    let close = link.close().await;
    assert_eq!(
        (header(&close.headers, MIGRATE_TO_HEADER), header(&close.headers, IF_IDLE_HEADER)),
        (Some(""), Some("1"))
    );
    close.connection_id.to_string()
}

async fn hand_over(link: &AppLink, id: &str) {
    link.send(handed_over(id, Some(&format!("items of {id}")))).await;
}

fn rebalanced(fixture: &Fixture) -> u64 {
    fixture.shared.counters().iter().map(|counters| counters.app_rebalanced.get()).sum()
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_comes_gets_its_share_and_each_client_goes_on_there() {
    let fixture = fixture(100, 2);
    let mut first = fixture.server("app-1").await;
    let mut all: [Client; 6] = first.clients().await;
    let mut second = fixture.server("app-2").await;
    let came_at = Instant::now();
    let mut moved = BTreeSet::new();
    for _ in 0..3 {
        let id = asked(&mut first).await;
        hand_over(&first, &id).await;
        let open = second.opening().await;
        assert_eq!((&*open.connection_id, header(&open.headers, MIGRATE_FROM_HEADER)), (&*id, Some("app-1")));
        assert_eq!(header(&open.headers, ITEMS_HEADER), Some(&*format!("items of {id}")));
        second.data().await;
        moved.insert(id);
    }
    assert_eq!(moved.len(), 3);
    let took = came_at.elapsed();
    assert!(took > Duration::from_secs(5) && took < BEGUN_WITHIN, "{took:?}: it is to settle first");
    for client in &mut all {
        let at = if moved.contains(&client.id) { &mut second } else { &mut first };
        client.send(&call("7", "M")).await;
        assert!(at.data().await.0.contains("\"M\""));
        at.write(&client.id, result("7", "1")).await;
        assert_eq!(client.text().await, "{\"type\":3,\"invocationId\":\"7\",\"result\":1}");
    }
    // sleep: virtual time, to prove that nothing arrives
    sleep(Duration::from_secs(300)).await;
    first.fence().await;
    second.fence().await;
    assert_eq!(rebalanced(&fixture), 3);
}

#[tokio::test(crate = "paused")]
async fn clients_go_at_the_rate_and_no_more_are_asked_for_than_that() {
    let fixture = fixture(2, 1);
    let mut first = fixture.server("app-1").await;
    let _all: [Client; 12] = first.clients().await;
    let mut second = fixture.server("app-2").await;
    let asked_for = [asked(&mut first).await, asked(&mut first).await];
    // sleep: time is virtual, and no further client is requested while these are pending
    sleep(Duration::from_secs(30)).await;
    first.fence().await;
    for id in &asked_for {
        hand_over(&first, id).await;
        second.opening().await;
        second.data().await;
    }
    let begun = Instant::now();
    for _ in 0..4 {
        let id = asked(&mut first).await;
        hand_over(&first, &id).await;
        second.opening().await;
        second.data().await;
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1000) && took < Duration::from_secs(4), "{took:?}");
    // sleep: as above
    sleep(Duration::from_secs(300)).await;
    first.fence().await;
    assert_eq!(rebalanced(&fixture), 6);
}

#[tokio::test(crate = "paused")]
async fn a_client_in_a_call_is_not_asked_for_until_that_has_ended() {
    let fixture = fixture(100, 1);
    let mut first = fixture.server("app-1").await;
    let mut all: [Client; 2] = first.clients().await;
    for client in &mut all {
        client.send(&call("1", "Slow")).await;
        first.data().await;
    }
    let mut second = fixture.server("app-2").await;
    // sleep: as above
    sleep(Duration::from_secs(30)).await;
    first.fence().await;
    first.write(&all[1].id, result("1", "1")).await;
    assert_eq!(asked(&mut first).await, all[1].id);
    hand_over(&first, &all[1].id).await;
    assert_eq!(*second.opening().await.connection_id, *all[1].id);
}

#[tokio::test(crate = "paused")]
async fn a_client_of_which_something_runs_there_stays_and_is_read_on() {
    let fixture = fixture(100, 1);
    let mut first = fixture.server("app-1").await;
    let mut all: [Client; 2] = first.clients().await;
    let mut second = fixture.server("app-2").await;
    let id = asked(&mut first).await;
    let client = all.iter_mut().find(|client| client.id == id).unwrap();
    client.send(&cast("Next")).await;
    first.fence().await;
    first.send(flow(&id, FlowOperation::ReadOn)).await;
    assert!(first.data().await.0.contains("Next"));
    // No request is pending, so this hands over no client.
    first.send(flow(&id, FlowOperation::EndInput)).await;
    second.fence().await;
    // The next round may request the other client, or this one again.
    let next = asked(&mut first).await;
    hand_over(&first, &next).await;
    assert_eq!(*second.opening().await.connection_id, *next);
    assert_eq!(rebalanced(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_stops_meanwhile_is_asked_for_the_clients_that_it_has_kept() {
    let fixture = fixture(100, 1);
    let mut first = fixture.server("app-1").await;
    let all: [Client; 2] = first.clients().await;
    let mut second = fixture.server("app-2").await;
    let busy = asked(&mut first).await;
    first.send(flow("", FlowOperation::Offline)).await;
    let other = all.iter().find(|client| client.id != busy).unwrap();
    let plain = first.close().await;
    assert_eq!((&*plain.connection_id, header(&plain.headers, IF_IDLE_HEADER)), (&*other.id, None));
    first.send(flow(&busy, FlowOperation::ReadOn)).await;
    let plain = first.close().await;
    assert_eq!((&*plain.connection_id, header(&plain.headers, IF_IDLE_HEADER)), (&*busy, None));
    for id in [&*other.id, &*busy] {
        hand_over(&first, id).await;
        assert_eq!(*second.opening().await.connection_id, *id);
        second.data().await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_goes_to_another_app_server_if_the_new_one_stops_before_it_arrives() {
    let fixture = fixture(100, 1);
    let mut first = fixture.server("app-1").await;
    let mut all: [Client; 2] = first.clients().await;
    let mut second = fixture.server("app-2").await;
    let id = asked(&mut first).await;
    second.retire().await;
    hand_over(&first, &id).await;
    let open = first.opening().await;
    assert_eq!((&*open.connection_id, header(&open.headers, MIGRATE_FROM_HEADER)), (&*id, Some("app-1")));
    first.data().await;
    let client = all.iter_mut().find(|client| client.id == id).unwrap();
    client.send(&cast("Next")).await;
    assert!(first.data().await.0.contains("Next"));
}

#[tokio::test(crate = "paused")]
async fn with_a_rate_of_zero_clients_stay() {
    let off = fixture(0, 1);
    let mut first = off.server("app-1").await;
    let _all: [Client; 4] = first.clients().await;
    let mut second = off.server("app-2").await;
    // sleep: as above
    sleep(Duration::from_secs(300)).await;
    first.fence().await;
    second.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_calls_failed_with_their_link_is_asked_for() {
    let fixture = fixture(100, 1);
    let mut first = fixture.server("app-1").await;
    let mut all: [Client; 2] = first.clients().await;
    for client in &mut all {
        client.send(&call("1", "Slow")).await;
        first.data().await;
    }
    let mut app = first.cut();
    let mut first = app.link_anew().await;
    for client in &mut all {
        first.opening().await;
        first.data().await;
        assert!(client.text().await.starts_with("{\"type\":3,\"invocationId\":\"1\",\"error\":"));
    }
    let mut second = fixture.server("app-2").await;
    let id = asked(&mut first).await;
    hand_over(&first, &id).await;
    assert_eq!(*second.opening().await.connection_id, *id);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_is_asked_for_and_comes_back_over_another_socket_is_read_on() {
    let fixture = fixture(100, 1);
    let hub = HubManifest { stateful_reconnect_buffer_bytes: Some(1_000), ..HubManifest::new("chat", "/chat") };
    let mut first = fixture.server_with("app-1", hub.clone()).await;
    let mut all = BTreeMap::new();
    for _ in 0..2 {
        let (client, target) = Client::connect_stateful(&fixture, &mut first, "/chat").await;
        all.insert(client.id.clone(), (client, target));
    }
    let mut second = fixture.server_with("app-2", hub).await;
    for _ in 0..3 {
        let id = asked(&mut first).await;
        let (client, target) = all.remove(&id).unwrap();
        drop(client);
        first.fence().await;
        let client = Client::upgrade(&fixture, &target).await.unwrap();
        first.send(flow(&id, FlowOperation::ReadOn)).await;
        first.fence().await;
        all.insert(id, (client, target));
    }
    let id = asked(&mut first).await;
    hand_over(&first, &id).await;
    assert_eq!(*second.opening().await.connection_id, *id);
}
