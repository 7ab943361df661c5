//! Clients of app servers that dial in and return at another node: their connections move there unnoticed.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_protocol::service::*;

use super::app::{broadcast, json, membership, to_group, to_user};
use super::client::{Client, Received, STATEFUL_HANDSHAKE};
use super::fixture::paused;
use super::fleet_nodes::FleetNode;
use super::http::negotiate;
use super::hub_message::{cast, flow};
use super::inbound_links::{DialInLink, HUB, ONE, dial_in_nodes, expired_token, settle, token};
use super::moves::{ComingClient, call, come_back, sequence};
use crate::engine::shard::{ShardCommand, moving};
use crate::ground::net::connector::MemoryNetwork;

/// Three nodes: the client is at the first and returns at the second. Its app server has a link to each.
pub(super) struct DialInScene {
    _network: MemoryNetwork,
    pub(super) nodes: Vec<FleetNode>,
    pub(super) homes: Vec<DialInLink>,
    /// Links of another app server that only sends.
    pub(super) senders: Vec<DialInLink>,
}

impl DialInScene {
    pub(super) async fn open() -> Self {
        let (network, nodes) = dial_in_nodes(3).await;
        let (mut homes, mut senders) = (Vec::new(), Vec::new());
        for node in &nodes {
            homes.push(DialInLink::open(node, "home_1", ONE).await);
            senders.push(DialInLink::open(node, "sender_1", ONE).await);
        }
        settle().await;
        Self { _network: network, nodes, homes, senders }
    }

    /// Connects at the first node as a member of a group.
    pub(super) async fn connect(&mut self) -> (Client, String) {
        self.connect_with(&token("client", "ann")).await
    }

    pub(super) async fn connect_with(&mut self, access_token: &str) -> (Client, String) {
        let access = format!("&access_token={access_token}");
        let wish = format!("&hub=bench{access}&useStatefulReconnect=true");
        let (_, connection_token) = negotiate(&self.nodes[0].fixture, "/client", &wish).await;
        let target = format!("/client/{HUB}{access}&id={connection_token}");
        let mut client = Client::upgrade(&self.nodes[0].fixture, &target).await.unwrap();
        client.send(STATEFUL_HANDSHAKE).await;
        assert_eq!(client.next().await, Received::Text("{}".into()));
        let ServiceMessage::OpenConnection(open) = self.homes[0].next().await else { panic!("no opening") };
        client.id = open.connection_id.to_string();
        self.homes[0].send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "red", 7)));
        assert_eq!(self.homes[0].ack().await.status, AckStatus::Ok);
        settle().await;
        (client, target)
    }

    /// Creates the fixture with a client that has lost its socket. Returns its id and its reconnect target.
    async fn with_lost_client() -> (Self, String, String) {
        let mut scene = Self::open().await;
        let (client, target) = scene.connect().await;
        (scene, client.id.clone(), target)
    }

    /// Reconnects at the second node; the app server is asked to pause the client.
    pub(super) async fn begin_move(&mut self, id: &str, target: &str) -> ComingClient {
        let coming = come_back(&self.nodes[1], target);
        self.flow(0, id, FlowOperation::Pause).await;
        coming
    }

    /// Completes the move of the connection, and the client arrives.
    pub(super) async fn end_move(&mut self, coming: ComingClient, id: &str) -> Client {
        self.homes[0].send(flow(id, FlowOperation::PauseAck));
        let client = coming.await.unwrap().unwrap();
        self.flow(1, id, FlowOperation::Resume).await;
        client
    }

    fn send(&self, node: usize, id: &str, text: &str) {
        let (connection_id, payload) = (id.into(), Bytes::from(cast(text)));
        self.homes[node].send(ServiceMessage::ConnectionData(ConnectionData {
            connection_id,
            payload,
            ..ConnectionData::default()
        }));
    }

    /// Proves that no other message is in flight to the client.
    async fn nothing_else(&self, node: usize, id: &str, client: &mut Client) {
        self.send(node, id, "fence");
        assert_eq!(client.text().await, call("fence"));
    }

    /// Waits until a node pauses or resumes a client, recording other notifications.
    async fn flow(&mut self, node: usize, id: &str, operation: FlowOperation) {
        let told = loop {
            match self.homes[node].next().await {
                ServiceMessage::ConnectionReconnect(_) | ServiceMessage::UpdateConnectionClaims(_) => {}
                told => break told,
            }
        };
        assert_eq!(told, flow(id, operation));
    }

    async fn data(&mut self, node: usize) -> Bytes {
        loop {
            match self.homes[node].next().await {
                ServiceMessage::ConnectionData(data) => return data.payload,
                ServiceMessage::ConnectionReconnect(_) => {}
                other => panic!("{other:?} instead of data"),
            }
        }
    }
}

/// Message to one client, like `Clients.Client`, over any link.
fn to_one(id: &str, text: &str) -> ServiceMessage {
    let (connection_ids, payloads) = (vec![id.into()], json(text));
    ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads })
}

#[tokio::test(crate = "paused")]
async fn what_enters_the_fleet_anywhere_during_a_move_comes_once() {
    let mut scene = DialInScene::open().await;
    let (mut client, target) = scene.connect().await;
    let id = client.id.clone();
    scene.send(0, &id, "a");
    assert_eq!(client.text().await, call("a"));
    client.send(&cast("1")).await;
    assert_eq!(scene.data(0).await, cast("1"));
    drop(client);

    let mut expected: Vec<Vec<String>> = vec![Vec::new(); 3];
    let mut number = 0;
    // Sends from each node, with every kind of send.
    let mut send_next = |scene: &DialInScene| {
        for (node, sender) in scene.senders.iter().enumerate() {
            let words: [String; 4] = std::array::from_fn(|kind| call(&format!("{node}-{number}-{kind}")));
            let [red, ann, all, one] = &words;
            for message in [to_group("red", red), to_user("ann", ann), broadcast(all), to_one(&id, one)] {
                sender.send(message);
            }
            expected[node].extend(words);
        }
        number += 1;
    };
    send_next(&scene);
    let coming = scene.begin_move(&id, &target).await;
    send_next(&scene);
    scene.homes[0].send(flow(&id, FlowOperation::PauseAck));
    send_next(&scene);
    let mut client = coming.await.unwrap().unwrap();
    send_next(&scene);
    scene.flow(1, &id, FlowOperation::Resume).await;
    send_next(&scene);
    scene.send(1, &id, "b");
    assert_eq!(client.text().await, sequence(1));
    assert_eq!(client.text().await, call("a"), "it has not acknowledged it");
    let count = expected.iter().map(Vec::len).sum::<usize>() + 1;
    let mut heard = Vec::new();
    while heard.len() < count {
        heard.push(client.text().await);
    }
    settle().await;
    scene.nothing_else(1, &id, &mut client).await;
    assert_eq!(heard.iter().filter(|text| **text == call("b")).count(), 1);
    for (node, expected) in expected.iter().enumerate() {
        let of_node = format!("\"{node}-");
        let heard: Vec<_> = heard.iter().filter(|text| text.contains(&of_node)).collect();
        assert_eq!(heard, expected.iter().collect::<Vec<_>>(), "in the order of its node");
    }
    client.send(&(sequence(1) + "\u{1e}" + &cast("1") + &cast("2"))).await;
    assert_eq!(scene.data(1).await, cast("2"), "the first one had come before");
}

#[tokio::test(crate = "paused")]
async fn what_an_app_server_sends_over_both_links_around_the_resume_keeps_its_order() {
    let (mut scene, id, target) = DialInScene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    scene.homes[0].send(flow(&id, FlowOperation::PauseAck));
    scene.flow(1, &id, FlowOperation::Resume).await;
    // The SDK pauses completions only: `Clients.Caller` uses the old link until it has read the resume.
    scene.homes[0].send(to_one(&id, &call("1")));
    scene.homes[1].send(to_one(&id, &call("2")));
    scene.send(1, &id, "3");
    let mut client = coming.await.unwrap().unwrap();
    assert_eq!(client.text().await, sequence(1));
    assert_eq!([client.text().await, client.text().await, client.text().await], ["1", "2", "3"].map(call));
}

#[tokio::test(crate = "paused")]
async fn a_connection_moves_from_node_to_node_and_back() {
    let (mut scene, id, target) = DialInScene::with_lost_client().await;
    for number in 1..=4_u64 {
        let coming = scene.begin_move(&id, &target).await;
        let mut client = scene.end_move(coming, &id).await;
        assert_eq!(client.text().await, sequence(number));
        client.send(&(sequence(1) + "\u{1e}")).await;
        settle().await;
        scene.senders[2].send(to_group("red", &call("x")));
        assert_eq!(client.text().await, call("x"));
        client.send(&format!("{{\"type\":8,\"sequenceId\":{number}}}\u{1e}")).await;
        settle().await;
        drop(client);
        scene.nodes.swap(0, 1);
        scene.homes.swap(0, 1);
    }
}

#[tokio::test(crate = "paused")]
async fn groups_change_during_a_move_wherever_the_change_enters() {
    let (mut scene, id, target) = DialInScene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    let mut acks = Vec::new();
    for (sender, group) in scene.senders.iter_mut().zip(["at-0", "at-1", "at-2"]) {
        sender.send(ServiceMessage::JoinGroupWithAck(membership(&id, group, 7)));
        acks.push(sender.ack().await.status);
    }
    assert_eq!(acks, [AckStatus::Ok; 3]);
    let leave = GroupChange { ack_id: 9, ..membership(&id, "red", 9) };
    scene.senders[0].send(ServiceMessage::LeaveGroupWithAck(leave));
    assert_eq!(scene.senders[0].ack().await.status, AckStatus::Ok);
    let mut client = scene.end_move(coming, &id).await;
    assert_eq!(client.text().await, sequence(1));
    settle().await;
    for group in ["red", "at-0", "at-1", "at-2"] {
        scene.senders[2].send(to_group(group, &call(group)));
    }
    assert_eq!([client.text().await, client.text().await, client.text().await], ["at-0", "at-1", "at-2"].map(call));
    scene.nothing_else(1, &id, &mut client).await;
}

fn question(id: &str, invocation: &str) -> ServiceMessage {
    ServiceMessage::ClientInvocation(ClientInvocation {
        invocation_id: invocation.into(),
        connection_id: id.into(),
        caller_server_id: "sender_1".into(),
        payloads: json(&format!(
            "{{\"type\":1,\"invocationId\":\"{invocation}\",\"target\":\"ask\",\"arguments\":[]}}"
        )),
    })
}

#[tokio::test(crate = "paused")]
async fn a_question_that_enters_anywhere_during_a_move_is_asked_once() {
    let (mut scene, id, target) = DialInScene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    for (node, sender) in scene.senders.iter().enumerate() {
        sender.send(question(&id, &format!("q{node}")));
    }
    scene.homes[0].send(flow(&id, FlowOperation::PauseAck));
    let mut client = coming.await.unwrap().unwrap();
    assert_eq!(client.text().await, sequence(1));
    let mut asked = [client.text().await, client.text().await, client.text().await];
    asked.sort();
    for (node, asked) in asked.iter().enumerate() {
        assert!(asked.contains(&format!("\"q{node}\"")), "{asked}");
    }
    settle().await;
    scene.nothing_else(1, &id, &mut client).await;
}

#[tokio::test(crate = "paused")]
async fn a_node_that_has_given_a_connection_away_ends_it_for_nobody() {
    let (mut scene, id, _) = DialInScene::with_lost_client().await;
    // Taken directly, so no arrival is reported.
    let shared = scene.nodes[0].fixture.shared.clone();
    let (shard, hub) = (&shared.shards()[0], shared.hubs.keyed(HUB).unwrap().index());
    let (looked, leaving, (answer, given)) = (id.clone(), id.clone(), oneshot::channel());
    assert!(shard.inspect(move |state| moving::inspect(state, hub, &looked)).await.flatten().is_some());
    shard.post(move |state| moving::move_out(state, hub, &leaving, answer));
    scene.flow(0, &id, FlowOperation::Pause).await;
    scene.homes[0].send(flow(&id, FlowOperation::PauseAck));
    assert!(given.await.unwrap().is_some());
    shard.give(vec![ShardCommand::Drain(Duration::ZERO)], 0).await;
    let exists = Check { subject: id.as_str().into(), ack_id: 9 };
    scene.homes[0].send(ServiceMessage::CheckConnectionExistenceWithAck(exists));
    assert_eq!(scene.homes[0].ack().await.status, AckStatus::NotFound, "and no close before it");
}

#[tokio::test(crate = "paused")]
async fn an_expired_token_goes_on_with_a_connection_and_begins_none() {
    let mut scene = DialInScene::open().await;
    let old = format!("&access_token={}", expired_token("client", "ann"));
    let (client, target) = scene.connect().await;
    let id = client.id.clone();
    drop(client);
    let (_, connection) = target.rsplit_once("&id=").unwrap();
    let at_home = format!("/client/{HUB}{old}&id={connection}");
    let mut client = Client::upgrade(&scene.nodes[0].fixture, &at_home).await.unwrap();
    assert_eq!(client.text().await, sequence(1));
    client.close().await;
    settle().await;
    let fixture = &scene.nodes[0].fixture;
    assert_eq!(Client::upgrade(fixture, &at_home).await.err(), Some(401), "it is closed");
    let negotiation = format!("/client/negotiate{HUB}{old}&useStatefulReconnect=true&id={connection}");
    assert_eq!(super::http::exchange(fixture, "POST", &negotiation, "").await.0.as_u16(), 401);
    let without = format!("/client/{HUB}{old}");
    assert_eq!(Client::upgrade(fixture, &without).await.err(), Some(401));
    let over_http = format!("/client/{HUB}{old}&id={connection}");
    assert_eq!(super::http::exchange(fixture, "GET", &over_http, "").await.0.as_u16(), 401);
    drop(id);
}

#[tokio::test(crate = "paused")]
async fn a_move_that_is_not_acknowledged_fails_and_the_connection_stays() {
    let (mut scene, id, target) = DialInScene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    scene.senders[2].send(to_group("red", &call("a")));
    assert_eq!(coming.await.unwrap().err(), Some(404));
    scene.flow(0, &id, FlowOperation::Resume).await;
    let mut client = Client::upgrade(&scene.nodes[0].fixture, &target).await.unwrap();
    assert_eq!([client.text().await, client.text().await], [sequence(1), call("a")]);
    scene.nothing_else(0, &id, &mut client).await;
}
