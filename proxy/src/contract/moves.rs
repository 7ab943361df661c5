//! Clients that return at another node: their connections move there unnoticed.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;
use trunkline_protocol::fleet::MovedState;
use trunkline_protocol::service::*;

use super::app::{membership, to_group};
use super::client::{Client, PING, Received};
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, nodes, until};
use super::hub_message::{cast, flow};
use super::rest_data_plane::BackEnd;
use super::scene::{LinkedApp, shop};
use crate::engine::shard::{ShardCommand, ShardState, moving};

/// Two nodes, and one app server with a link to each.
struct Scene {
    nodes: Vec<FleetNode>,
    /// Links to the client's first node, and to the second node.
    old: LinkedApp,
    new: LinkedApp,
}

impl Scene {
    async fn open() -> Self {
        let (_, nodes) = nodes(2).await;
        let old = nodes[0].fixture.server_with("shop-1", shop()).await;
        let new = nodes[1].fixture.server_with("shop-1", shop()).await;
        Self { nodes, old, new }
    }

    /// Connects at the first node as a member of a group.
    async fn connect(&mut self) -> (Client, String) {
        let (client, target) = Client::connect_stateful(&self.nodes[0].fixture, &mut self.old, "/shop").await;
        self.old.join(&client.id, "red").await;
        (client, target)
    }

    /// Creates the fixture with a client that has lost its socket. Returns its id and its reconnect target.
    async fn with_lost_client() -> (Self, String, String) {
        let mut scene = Self::open().await;
        let (client, target) = scene.connect().await;
        (scene, client.id.clone(), target)
    }

    /// Reconnects at the second node; the app server is asked to allow the move.
    async fn begin_move(&mut self, id: &str, target: &str) -> ComingClient {
        let coming = come_back(&self.nodes[1], target);
        self.asked(id).await;
        coming
    }

    /// Completes the move of the connection, and the client arrives.
    async fn end_move(&mut self, coming: ComingClient, id: &str, epoch: i64) -> Client {
        self.answer(id, epoch).await;
        let client = coming.await.unwrap().unwrap();
        assert_eq!(self.new.next().await, flow(id, FlowOperation::Resume));
        client
    }

    /// Expects a request to allow the move.
    async fn asked(&mut self, id: &str) {
        assert_eq!(self.old.next().await, flow(id, FlowOperation::Pause));
    }

    async fn answer(&mut self, id: &str, epoch: i64) {
        self.old.send(flow(id, FlowOperation::PauseAck)).await;
        let moving = MoveConnection { connection_id: id.into() };
        assert_eq!(self.old.next().await, ServiceMessage::MoveConnection(moving));
        let moved = ConnectionMoved { connection_id: id.into(), epoch };
        self.old.send(ServiceMessage::ConnectionMoved(moved)).await;
    }
}

/// Client with a pending upgrade.
pub(super) type ComingClient = JoinHandle<Result<Client, u16>>;

/// Reconnects at a node. The upgrade completes once the connection has moved there.
pub(super) fn come_back(node: &FleetNode, target: &str) -> ComingClient {
    let (pipe, target) = (node.fixture.dial(), target.to_owned());
    spawn_local(async move { Client::upgrade_over(pipe, &target).await })
}

fn stamped(epoch: i64, message: &ServiceMessage) -> ServiceMessage {
    ServiceMessage::Stamped(Stamped { epoch, body: message.to_body() })
}

pub(super) fn call(name: &str) -> String {
    format!("{{\"type\":1,\"target\":\"{name}\",\"arguments\":[]}}")
}

pub(super) fn sequence(number: u64) -> String {
    format!("{{\"type\":9,\"sequenceId\":{number}}}")
}

#[tokio::test(crate = "paused")]
async fn what_is_sent_before_during_and_after_a_move_comes_once_and_in_order() {
    let mut scene = Scene::open().await;
    let (mut client, target) = scene.connect().await;
    let id = client.id.clone();
    scene.old.write(&id, cast("a")).await;
    assert_eq!(client.text().await, call("a"));
    client.send(&cast("1")).await;
    assert_eq!(scene.old.data().await.0, cast("1"));
    drop(client);
    scene.old.send(to_group("red", &call("b"))).await;

    let coming = scene.begin_move(&id, &target).await;
    // Both nodes get a copy of each send, in any order relative to the rest.
    let sends = [
        to_group("red", &call("c")),
        stamped(1, &to_group("red", &call("e"))),
        to_group("red", &call("d")),
        stamped(2, &to_group("red", &call("f"))),
    ];
    for send in &sends {
        scene.new.send(send.clone()).await;
        scene.old.send(send.clone()).await;
    }
    scene.new.fence().await;
    let mut client = scene.end_move(coming, &id, 1).await;
    scene.new.write(&id, cast("g")).await;
    scene.new.send(to_group("red", &call("late, of before"))).await;
    scene.new.send(stamped(2, &to_group("red", &call("h")))).await;
    assert_eq!(client.text().await, sequence(1));
    for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert_eq!(client.text().await, call(text));
    }
    client.send(&(sequence(1) + "\u{1e}" + &cast("1") + &cast("2"))).await;
    assert_eq!(scene.new.data().await.0, cast("2"));
    scene.old.fence().await;
    scene.new.fence().await;
    let moved = |node: usize| &scene.nodes[node].fixture.shared.counters()[0];
    assert_eq!(moved(0).moved_out.of(crate::ground::metrics::MoveCause::Reconnect).get(), 1);
    assert_eq!(moved(1).moved_in.of(crate::ground::metrics::MoveCause::Reconnect).get(), 1);
    assert_eq!(moved(0).replay_bytes.get(), 0);
    // The former owner has removed the connection.
    let gone = Check { subject: id.as_str().into(), ack_id: 7 };
    scene.old.send(ServiceMessage::CheckConnectionExistenceWithAck(gone)).await;
    assert_eq!(scene.old.ack().await, (7, AckStatus::NotFound));
}

#[tokio::test(crate = "paused")]
async fn a_connection_moves_back_and_forth() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    for epoch in 1..=4 {
        let coming = scene.begin_move(&id, &target).await;
        let mut client = scene.end_move(coming, &id, epoch).await;
        assert_eq!(client.text().await, sequence(u64::try_from(epoch).unwrap()));
        client.send(&(sequence(1) + "\u{1e}")).await;
        scene.new.send(stamped(epoch, &to_group("red", &call("x")))).await;
        assert_eq!(client.text().await, call("x"));
        client.send(&format!("{{\"type\":8,\"sequenceId\":{epoch}}}\u{1e}")).await;
        drop(client);
        scene.nodes.swap(0, 1);
        std::mem::swap(&mut scene.old, &mut scene.new);
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_returns_before_its_old_node_is_notified_of_the_move() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    // Manual move: the second node takes the connection without reporting it.
    let [old, new] = [0, 1].map(|node| scene.nodes[node].fixture.shared.clone());
    let [at_old, at_new] = [&old, &new].map(|shared| shared.hubs.keyed("shop").unwrap());
    let (hub, looked) = (at_old.index(), id.clone());
    let moving = old.shards()[0].inspect(move |state| moving::inspect(state, hub, &looked)).await.flatten().unwrap();
    let (hub, settings, known, arriving) = (at_new.index(), at_new.settings(), moving.clone(), id.clone());
    let arrive = move |state: &mut ShardState| moving::arrive(state, hub, &settings, &arriving, &known);
    let place = new.shards()[0].inspect(arrive).await.flatten().unwrap();
    let ((answer, given), hub, leaving) = (oneshot::channel(), at_old.index(), id.clone());
    old.shards()[0].post(move |state| moving::move_out(state, hub, &leaving, answer));
    scene.asked(&id).await;
    scene.answer(&id, 1).await;
    let state = MovedState::decode(&given.await.unwrap().unwrap()).unwrap();
    let hub = at_new.index();
    let is_settled = new.shards()[0].inspect(move |to| moving::settle(to, place, hub, (&moving, state))).await;
    assert!(is_settled.flatten().is_some());
    assert_eq!(scene.new.next().await, flow(&id, FlowOperation::Resume));

    scene.nodes.swap(0, 1);
    std::mem::swap(&mut scene.old, &mut scene.new);
    let coming = scene.begin_move(&id, &target).await;
    let mut client = scene.end_move(coming, &id, 2).await;
    assert_eq!(client.text().await, sequence(1));
    assert_eq!(old.counters()[0].moved_out.of(crate::ground::metrics::MoveCause::Reconnect).get(), 1);
}

#[tokio::test(crate = "paused")]
async fn a_move_that_the_app_server_does_not_answer_fails_and_the_connection_stays() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    scene.old.send(to_group("red", &call("a"))).await;
    assert_eq!(coming.await.unwrap().err(), Some(404));
    assert_eq!(scene.old.next().await, flow(&id, FlowOperation::Resume));
    // The connection is still there, with all messages sent to it.
    let mut client = Client::upgrade(&scene.nodes[0].fixture, &target).await.unwrap();
    assert_eq!([client.text().await, client.text().await], [sequence(1), call("a")]);
    scene.new.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_late_answer_to_a_move_that_has_failed_is_not_taken_for_one_to_the_next_move() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    assert_eq!(coming.await.unwrap().err(), Some(404));
    assert_eq!(scene.old.next().await, flow(&id, FlowOperation::Resume));
    assert_eq!(come_back(&scene.nodes[1], &target).await.unwrap().err(), Some(404));
    scene.old.send(flow(&id, FlowOperation::PauseAck)).await;
    scene.old.fence().await;
    let coming = scene.begin_move(&id, &target).await;
    assert_eq!(scene.end_move(coming, &id, 1).await.text().await, sequence(1));
}

#[tokio::test(crate = "paused")]
async fn a_token_that_was_never_used_opens_a_connection_at_any_node() {
    let mut scene = Scene::open().await;
    let target = Client::stateful_target(&scene.nodes[0].fixture, "/shop").await;
    Client::connect_at(&scene.nodes[1].fixture, &mut scene.new, &target).await;
    scene.old.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_stopping_node_moves_its_clients_to_another_node_unnoticed() {
    let mut scene = Scene::open().await;
    let (mut client, target) = scene.connect().await;
    let id = client.id.clone();
    let shared = scene.nodes[0].fixture.shared.clone();
    shared.refuse_clients();
    shared.shards()[0].give(vec![ShardCommand::Drain(Duration::from_secs(25))], 0).await;
    assert_eq!(client.next().await, Received::End(None), "without a goodbye, after which clients don't come back");
    // The load balancer still routes to the old node.
    let mut client = Client::upgrade(&scene.nodes[0].fixture, &target).await.unwrap();
    assert_eq!(client.text().await, sequence(1));
    assert_eq!(client.next().await, Received::End(None));
    let coming = scene.begin_move(&id, &target).await;
    let mut client = scene.end_move(coming, &id, 1).await;
    assert_eq!(client.text().await, sequence(1));
    scene.new.write(&id, cast("a")).await;
    assert_eq!(client.text().await, call("a"));
    scene.old.fence().await;
    until(Duration::from_secs(5), "nobody is left", || shared.sockets() == 0 && shared.counters()[0].away.get() == 0)
        .await;
    assert_eq!(shared.counters()[0].moved_out.of(crate::ground::metrics::MoveCause::Drain).get(), 1);
}

#[tokio::test(crate = "paused")]
async fn a_node_without_others_says_goodbye_to_its_clients() {
    let mut scene = Scene::open().await;
    let (mut client, _) = scene.connect().await;
    scene.nodes[1].cut(true);
    let shared = scene.nodes[0].fixture.shared.clone();
    until(Duration::from_secs(60), "the other one is gone", || !shared.other_nodes().are_ready()).await;
    shared.shards()[0].give(vec![ShardCommand::Drain(Duration::from_secs(25))], 0).await;
    while let Received::Text(text) = client.next().await {
        assert!(text == PING || text == "{\"type\":7,\"allowReconnect\":true}", "{text}");
    }
    scene.old.close().await;
}

#[tokio::test(crate = "paused")]
async fn a_group_that_is_left_during_a_move_is_left() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    // Another app server changes its groups; only the new owner is notified.
    let leave = GroupChange { ack_id: 0, ..membership(&id, "red", 0) };
    scene.new.send(ServiceMessage::LeaveGroup(leave)).await;
    scene.new.send(ServiceMessage::JoinGroup(membership(&id, "blue", 0))).await;
    scene.new.fence().await;
    let mut client = scene.end_move(coming, &id, 1).await;
    scene.new.send(stamped(1, &to_group("red", &call("a")))).await;
    scene.new.send(stamped(1, &to_group("blue", &call("b")))).await;
    assert_eq!([client.text().await, client.text().await], [sequence(1), call("b")]);
}

#[tokio::test(crate = "paused")]
async fn who_gives_up_while_others_are_asked_leaves_nothing_behind() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    let coming = scene.begin_move(&id, &target).await;
    coming.abort();
    scene.answer(&id, 1).await;
    assert_eq!(scene.new.next().await, flow(&id, FlowOperation::Resume));
    // The connection has moved anyway, and waits there.
    let mut client = come_back(&scene.nodes[1], &target).await.unwrap().unwrap();
    assert_eq!(client.text().await, sequence(1));
}

#[tokio::test(crate = "paused")]
async fn a_response_to_a_stream_item_waits_until_its_client_has_moved() {
    let (mut scene, id, target) = Scene::with_lost_client().await;
    let back_end = BackEnd::of(&scene.nodes[0].fixture, scene.nodes[0].fleet.clone());
    let (path, item) =
        (format!("/api/hubs/shop/connections/{id}/streams/s1/:send"), format!("\"{}\"", "x".repeat(150_000)));
    let begun = Instant::now();
    let sending = spawn_local(async move { back_end.ask("POST", &path, &item).await });
    scene.old.fence().await;
    let coming = scene.begin_move(&id, &target).await;
    assert!(!sending.is_finished());
    let mut client = scene.end_move(coming, &id, 1).await;
    assert_eq!(sending.await.unwrap().status, 202);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(client.text().await, sequence(1));
    assert!(client.text().await.len() > 150_000);
}
