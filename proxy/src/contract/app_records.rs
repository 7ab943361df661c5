//! Records that an app server which sends to all nodes has chosen in its manifest.

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use trunkline_protocol::manifest::RecordedNames;
use trunkline_protocol::service::*;

use super::app::{json as text_payload, to_group};
use super::client::Client;
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, nodes};
use super::followed_records::{end, follow, item, said, texts};
use super::scene::chat;
use crate::edge::observer::{Announcement, ApiError, RecordOrder};
use crate::edge::rest::Addressee;
use crate::ground::condition::ConditionKind;

/// Nodes with app servers that record the groups `room-*`, and a member of `room-1` at each.
async fn rooms(count: u8) -> (Vec<FleetNode>, Vec<Client>) {
    let (_network, mut nodes) = nodes(count).await;
    let history = vec![RecordedNames { of_users: false, names: "room-*".into(), messages: 5, age_ms: 60_000 }];
    let mut clients = Vec::new();
    for node in &mut nodes {
        let hubs = &node.fixture.shared.hubs;
        hubs.register(chat(|hub| hub.history = history.clone()), &hubs.groups.default_one());
        let client = node.client().await;
        node.link.join(&client.id, "room-1").await;
        clients.push(client);
    }
    (nodes, clients)
}

fn append(nodes: &[FleetNode], id: &str, text: &str) -> RecordRequest {
    RecordRequest {
        set: RecordedSet::group("room-1"),
        act: RecordAct::Append,
        id: Some(id.into()),
        body: to_group("room-1", &said(text)).to_body(),
        ack_id: 7,
        nodes: nodes.iter().map(|node| node.fixture.shared.boot.as_str().into()).collect(),
        ..RecordRequest::default()
    }
}

/// Sends a request over the link of a node, and returns the answer.
async fn ask(node: &mut FleetNode, request: RecordRequest) -> RecordReply {
    node.link.send(ServiceMessage::RecordRequest(request)).await;
    let ack = node.link.whole_ack().await;
    assert_eq!(ack.ack_id, 7);
    RecordReply::decode(&ack.payload.unwrap()).unwrap()
}

#[tokio::test(crate = "paused")]
async fn a_send_over_one_link_is_recorded_once_and_reaches_members_and_followers_of_all_nodes() {
    let (mut nodes, mut clients) = rooms(3).await;
    follow(&mut clients[2], "s", json!({ "group": "room-1", "after": "0" })).await;
    let request = append(&nodes, "a", "hello");
    let reply = ask(&mut nodes[0], request.clone()).await;
    assert_eq!((reply.refused, reply.nodes, reply.missing.len()), (None, 3, 0));
    let repeated = ask(&mut nodes[1], request).await;
    assert_eq!(repeated.position, reply.position);
    for client in &mut clients[..2] {
        assert_eq!(client.text().await, said("hello"));
    }
    assert_eq!(item(&mut clients[2]).await, (reply.position.to_string(), "hello".into()));
    let other = append(&nodes, "a", "other");
    assert_eq!(ask(&mut nodes[2], other).await.refused, Some(RecordRefusal::OtherMessage));
    let request = append(&nodes, "b", "again");
    ask(&mut nodes[1], request.clone()).await;
    for client in &mut clients[..2] {
        assert_eq!(client.text().await, said("again"), "nothing was doubled");
    }
    assert_eq!(texts(&mut clients[2], 1).await, ["again"]);
    let finish = RecordRequest { act: RecordAct::Finish, id: None, body: Default::default(), ..request.clone() };
    assert_eq!(ask(&mut nodes[0], finish).await.refused, None);
    assert_eq!(end(&mut clients[2]).await, None);
    let late = append(&nodes, "c", "late");
    assert_eq!(ask(&mut nodes[0], late).await.refused, Some(RecordRefusal::Finished));
}

#[tokio::test(crate = "paused")]
async fn nothing_is_recorded_while_an_app_server_has_a_link_to_a_node_that_is_no_peer() {
    let (mut nodes, mut clients) = rooms(2).await;
    let mut request = append(&nodes, "a", "lost");
    request.nodes.push("stranger".into());
    let reply = ask(&mut nodes[0], request).await;
    assert_eq!(reply.refused, Some(RecordRefusal::Moving));
    assert!(reply.problem.contains("the node stranger has links to the app server, but is no peer"), "{reply:?}");
    let conditions = &nodes[0].fixture.shared.reports.conditions;
    conditions.update(Vec::new(), false, Instant::now());
    assert!(conditions.list().iter().any(|condition| condition.kind == ConditionKind::RecordsRefused));
    let request = append(&nodes, "b", "next");
    assert_eq!(ask(&mut nodes[0], request).await.refused, None);
    for client in &mut clients {
        assert_eq!(client.text().await, said("next"), "nothing was sent before");
    }
}

#[tokio::test(crate = "paused")]
async fn a_request_for_another_set_than_that_of_its_message_is_refused_and_only_recorded_hubs_follow() {
    let (mut nodes, mut clients) = rooms(1).await;
    let mut request = append(&nodes, "a", "x");
    let all = BroadcastData { payloads: text_payload("x"), ..BroadcastData::default() };
    request.body = ServiceMessage::BroadcastData(all).to_body();
    nodes[0].link.send(ServiceMessage::RecordRequest(request)).await;
    nodes[0].link.fence().await;
    let request = append(&nodes, "b", "y");
    assert_eq!(ask(&mut nodes[0], request).await.refused, None);
    assert_eq!(clients[0].text().await, said("y"), "nothing was sent before");

    let (_network, mut nodes) = super::fleet_nodes::nodes(1).await;
    let mut client = nodes[0].client().await;
    follow(&mut client, "s", json!({ "group": "room-1" })).await;
    assert!(nodes[0].link.data().await.0.contains("\"follow\""), "the method is the app's");
}

#[tokio::test(crate = "paused")]
async fn an_operator_lists_ends_and_deletes_records_of_all_nodes_and_announces_to_them() {
    let (mut nodes, mut clients) = rooms(3).await;
    follow(&mut clients[1], "s", json!({ "group": "room-1", "after": "0" })).await;
    let announcement = Announcement {
        hub: "chat".into(),
        to: Addressee::Group("room-1".into()),
        target: "Say".into(),
        arguments: serde_json::from_value(json!(["to all"])).unwrap(),
    };
    let observer = nodes[0].observer();
    assert_eq!(observer.announcer.announce(announcement).await.unwrap().nodes, 3);
    let (first, text) = item(&mut clients[1]).await;
    assert_eq!(text, "to all");
    let request = append(&nodes, "a", "hello");
    let newest = ask(&mut nodes[2], request).await.position;
    assert_eq!(texts(&mut clients[1], 1).await, ["hello"]);
    for node in &nodes {
        let page = node.observer().records.list("chat").await;
        let [row] = &*page.items else { panic!("{page:?}") };
        assert_eq!((&*row.name, row.is_user, row.messages, row.followers), ("room-1", false, 2, 1));
        assert_eq!((page.total, row.position.as_deref(), row.is_finished), (Some(1), Some(&*newest), false));
        assert!(row.node.is_some() && row.bytes > 0 && row.used_ms > 0 && *first < *newest, "{row:?}");
    }
    let change = |set, act| observer.records.change(RecordOrder { hub: "chat".into(), set, act });
    let room = || RecordedSet::group("room-1");
    assert_eq!(change(room(), RecordAct::Finish).await.unwrap().position, &*newest);
    assert_eq!(end(&mut clients[1]).await, None);
    assert!(nodes[1].observer().records.list("chat").await.items[0].is_finished);
    assert_eq!(change(room(), RecordAct::Delete).await.unwrap().missing.len(), 0);
    let missing = change(room(), RecordAct::Delete).await;
    assert_eq!(missing, Err(ApiError::new(StatusCode::NOT_FOUND, "there is no such record")));
    assert_eq!(nodes[1].observer().records.list("chat").await.total, Some(0));
}
