//! Crashed or frozen nodes: clients with stateful reconnect return at other nodes while their tokens are recent.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::service::{ConnectionFlowControl, ConnectionMoved, FlowOperation, ServiceMessage};

use super::client::{Client, Received};
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, linked, peers};
use super::moves::sequence;
use super::scene::{LinkedApp, shop};
use crate::ground::config::{RelaySettings, Settings};
use crate::ground::metrics::ReservationOutcome;
use crate::ground::net::connector::MemoryNetwork;

/// Time until a node without prior information detects that another node is dead.
const AT_ONCE: Duration = Duration::from_millis(350);

/// Three nodes, and one app server with a link to each.
struct Scene {
    network: MemoryNetwork,
    nodes: Vec<FleetNode>,
    links: Vec<LinkedApp>,
}

impl Scene {
    async fn open() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: fn(Settings) -> Settings) -> Self {
        let (network, mut nodes) = (MemoryNetwork::default(), Vec::new());
        for number in 1..=3 {
            nodes.push(FleetNode::start(&network, number, change(peers(&[1, 2, 3]))).await);
        }
        linked(&nodes).await;
        let mut links = Vec::new();
        for node in &nodes {
            links.push(node.fixture.server_with("shop-1", shop()).await);
        }
        Self { network, nodes, links }
    }

    async fn negotiate(&self) -> String {
        Client::stateful_target(&self.nodes[0].fixture, "/shop").await
    }

    /// Negotiates at the first node and connects at another.
    async fn connect(&mut self, node: usize) -> (Client, String) {
        let target = self.negotiate().await;
        (Client::connect_at(&self.nodes[node].fixture, &mut self.links[node], &target).await, target)
    }

    /// Status of a refused upgrade at this node, if refused, and the time until the response.
    async fn refused(&self, node: usize, target: &str) -> (Option<u16>, Duration) {
        let begun = Instant::now();
        (Client::upgrade(&self.nodes[node].fixture, target).await.err(), begun.elapsed())
    }

    fn reservations(&self, node: usize, outcome: ReservationOutcome) -> u64 {
        self.nodes[node].fixture.shared.counters_of(0).relay.reservations.of(outcome).get()
    }
}

#[tokio::test(crate = "paused")]
async fn clients_of_a_node_that_is_killed_are_told_at_once_that_their_connections_are_gone() {
    super::fleet_nodes::by_network();
    let mut scene = Scene::open().await;
    let targets = [scene.connect(0).await.1, scene.connect(1).await.1, scene.negotiate().await];
    scene.nodes[0].kill(&scene.network);
    scene.nodes[1].kill(&scene.network);
    // At first the crash is unnoticed, then the node is unreachable, then evicted.
    for waits_s in [0, 1, 8] {
        sleep(Duration::from_secs(waits_s)).await; // sleep: virtual time; the state of other nodes changes with it
        for target in &targets {
            let (status, took) = scene.refused(2, target).await;
            assert_eq!(status, Some(404), "{waits_s}");
            assert!(took <= AT_ONCE, "{waits_s}: {took:?}");
        }
    }
    scene.links[2].fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_new_connection_waits_for_no_dead_node() {
    super::fleet_nodes::by_network();
    let mut scene = Scene::open().await;
    scene.nodes[1].kill(&scene.network);
    let begun = Instant::now();
    drop(scene.connect(0).await);
    assert!(begun.elapsed() <= AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn clients_of_a_node_that_is_frozen_are_told_soon_that_their_connections_are_gone() {
    let mut scene = Scene::open().await;
    let (_client, target) = scene.connect(0).await;
    let port = scene.nodes[0].fixture.shared.settings.advertise.clone().unwrap();
    // Its sockets are open, but pass no data.
    let _taken = scene.network.listen(&port);
    scene.nodes[0].cut(true);
    for (waits_s, most_ms) in [(0, 1_550), (5, 650)] {
        sleep(Duration::from_secs(waits_s)).await; // sleep: as above
        let (status, took) = scene.refused(1, &target).await;
        assert_eq!(status, Some(404), "{waits_s}");
        assert!(took.as_millis() <= most_ms, "{waits_s}: {took:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn an_id_opens_once_wherever_it_opens_and_not_after_the_goodbye_of_its_client() {
    let mut scene = Scene::open().await;
    for node in [0, 1] {
        let (client, target) = scene.connect(node).await;
        client.close().await;
        scene.links[node].close().await;
        for other in [2, 1, 0, 2] {
            assert_eq!(scene.refused(other, &target).await.0, Some(404), "{node} {other}");
        }
    }
    assert_eq!(scene.reservations(1, ReservationOutcome::Granted), 1);
    assert_eq!(scene.reservations(2, ReservationOutcome::Unknown), 4);
}

#[tokio::test(crate = "paused")]
async fn a_client_comes_back_at_the_node_of_its_token_which_never_had_it_and_its_id_ends_with_it() {
    let mut scene = Scene::open().await;
    let (client, target) = scene.connect(1).await;
    drop(client);
    let (pipe, back) = (scene.nodes[0].fixture.dial(), target.clone());
    let coming = tokio::task::spawn_local(async move { Client::upgrade_over(pipe, &back).await });
    loop {
        match scene.links[1].next().await {
            ServiceMessage::ConnectionFlowControl(pause) => {
                let answer = ConnectionFlowControl { operation: FlowOperation::PauseAck, ..pause };
                scene.links[1].send(ServiceMessage::ConnectionFlowControl(answer)).await;
            }
            ServiceMessage::MoveConnection(moving) => {
                let moved = ConnectionMoved { connection_id: moving.connection_id, epoch: 1 };
                break scene.links[1].send(ServiceMessage::ConnectionMoved(moved)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    let mut client = coming.await.unwrap().unwrap();
    assert_eq!(client.text().await, sequence(1));
    client.close().await;
    assert!(matches!(scene.links[0].next().await, ServiceMessage::ConnectionFlowControl(_)));
    scene.links[0].close().await;
    for node in [0, 1, 2] {
        assert_eq!(scene.refused(node, &target).await.0, Some(404), "{node}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_node_that_can_be_asked_by_its_link_alone_is_believed() {
    super::fleet_nodes::by_network();
    let mut scene = Scene::open().await;
    scene.nodes[0].unplug(&scene.network);
    drop(scene.connect(1).await);
    assert_eq!(scene.reservations(1, ReservationOutcome::Unanswered), 1);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_returns_where_nodes_query_no_other_is_asked_to_start_over() {
    let each_for_itself = |settings| {
        let relay = RelaySettings { forward: false, ..RelaySettings::embedded() };
        Settings { relay, ..settings }
    };
    let mut scene = Scene::with(each_for_itself).await;
    let targets = [scene.connect(0).await.1, scene.connect(0).await.1];
    scene.nodes[0].kill(&scene.network);
    for (target, is_binary) in targets.into_iter().zip([false, true]) {
        let mut client = Client::upgrade(&scene.nodes[1].fixture, &target).await.unwrap();
        if is_binary {
            client.write(Message::binary(&b"\x03\x92\x09\x01"[..])).await;
            assert_eq!(client.next().await, Received::Binary(Bytes::from_static(b"\x03\x92\x09\x01")));
            assert!(matches!(client.next().await, Received::Binary(close) if close.starts_with(b"\x04\x93\x07")));
        } else {
            client.send(&(sequence(1) + "\u{1e}")).await;
            let told = [client.text().await, client.text().await];
            assert_eq!(told, [sequence(1), "{\"type\":7,\"allowReconnect\":true}".into()]);
        }
        assert_eq!(client.next().await, Received::End(Some(1000)));
        drop(client);
        assert_eq!(scene.refused(1, &target).await.0, Some(404), "its id is used up");
        scene.links[1].fence().await;
    }
}
