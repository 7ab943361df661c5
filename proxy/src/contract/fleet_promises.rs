//! Guarantees of a node: its responses hold for all messages that enter the fleet later, at any node.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_protocol::fleet::Wanted;
use trunkline_protocol::limits::INTEREST_STALE_MS;
use trunkline_protocol::service::ServiceMessage;

use super::app::{broadcast, membership, to_group, to_user};
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, linked, nodes};
use crate::fleet::FleetEntry;

/// Sends a message at a node, for clients of other nodes.
fn send_to_group(node: &FleetNode, group: &str, text: &str) {
    FleetEntry::from_fleet(&node.fleet).relay("chat", &[Wanted::Group(group)], &to_group(group, text));
}

#[tokio::test(crate = "paused")]
async fn a_send_that_follows_the_ack_of_a_join_finds_the_member_from_any_node() {
    let (_network, mut nodes) = nodes(3).await;
    let mut client = nodes[1].client().await;
    linked(&nodes).await;
    for number in 0..20 {
        let group = format!("room {number}");
        nodes[1].link.join(&client.id, &group).await;
        for (from, node) in [&nodes[0], &nodes[2]].into_iter().enumerate() {
            let text = format!("{number} from {from}");
            send_to_group(node, &group, &text);
            assert_eq!(client.text().await, text);
        }
    }
}

#[tokio::test(crate = "paused")]
async fn a_second_member_is_acknowledged_no_sooner_than_the_first() {
    let (_network, mut nodes) = nodes(2).await;
    let mut clients = [nodes[1].client().await, nodes[1].client().await];
    linked(&nodes).await;
    let joins = clients.each_ref().map(|client| membership(&client.id, "hall", 7));
    nodes[1].link.send_together(joins.map(ServiceMessage::JoinGroupWithAck)).await;
    nodes[1].link.ack().await;
    nodes[1].link.ack().await;
    send_to_group(&nodes[0], "hall", "hello");
    for client in &mut clients {
        assert_eq!(client.text().await, "hello");
    }
}

#[tokio::test(crate = "paused")]
async fn the_first_client_of_a_hub_and_each_user_who_has_just_connected_are_found_from_any_node() {
    let ((_network, mut nodes), mut clients) = (nodes(2).await, Vec::new());
    for number in 0..10 {
        let user = format!("user {number}");
        let mut client = nodes[1].link.client_of(&user).await;
        if number == 0 {
            FleetEntry::from_fleet(&nodes[0].fleet).relay("chat", &[Wanted::Everyone], &broadcast("first"));
            assert_eq!(client.text().await, "first");
        }
        FleetEntry::from_fleet(&nodes[0].fleet).relay("chat", &[Wanted::User(&user)], &to_user(&user, "welcome"));
        assert_eq!(client.text().await, "welcome");
        clients.push(client);
    }
}

#[tokio::test(crate = "paused")]
async fn a_node_that_does_not_hear_is_waited_for_as_long_as_it_believes_what_it_knew_and_then_no_more() {
    let (_network, mut nodes) = nodes(3).await;
    let client = nodes[1].client().await;
    linked(&nodes).await;
    nodes[2].cut(true);
    let begun = Instant::now();
    nodes[1].link.join(&client.id, "red").await;
    let stale = Duration::from_millis(INTEREST_STALE_MS);
    let first = begun.elapsed();
    assert!(first > Duration::from_millis(500) && first <= stale + Duration::from_millis(50), "{first:?}");
    sleep(Duration::from_secs(1)).await; // sleep: further heartbeats are missed
    let begun = Instant::now();
    nodes[1].link.join(&client.id, "green").await;
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn a_node_that_gives_no_sign_of_life_is_waited_for_a_second_and_then_named_at_once() {
    let (_network, mut nodes) = nodes(3).await;
    let _client = nodes[2].client().await;
    linked(&nodes).await;
    nodes[2].cut(true);
    let hub = FleetEntry::from_fleet(&nodes[0].fleet).hub_named("chat");
    for limit in [Duration::from_millis(1_200), Duration::from_millis(1)] {
        let begun = Instant::now();
        let delivery = FleetEntry::from_fleet(&nodes[0].fleet).begin_delivery(&hub, broadcast("hello")).await.await;
        assert_eq!(delivery.missing, ["n3"]);
        assert!(begun.elapsed() <= limit, "{:?}", begun.elapsed());
    }
}
