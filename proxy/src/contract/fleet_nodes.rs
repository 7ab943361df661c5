//! Nodes of a fleet: discovery, relayed messages and queries.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ::http::StatusCode;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};
use trunkline_channel::HelloTable;
use trunkline_protocol::fleet::{Greeting, Wanted, WireVersions};
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{CHANNEL_PATH, FLEET_GREET_PATH};

use super::app::{broadcast, json, to_group};
use super::client::Client;
use super::fixture::{Fixture, NodeSettings, accepted_pipes, paused, settings};
use super::scene::LinkedApp;
use crate::edge::admin;
use crate::edge::observer::Observer;
use crate::features::store::{self, MemoryEngine, Store};
use crate::fleet::{
    self, ChannelLock, ChannelRefused, DropCause, Fleet, FleetDelivery, FleetEntry, FromNode, InvocationOutcome,
    MemberState, NoAnswer, OwnNames, PeerRequest, open_channel,
};
use crate::ground::config::{FleetSettings, RelaySettings, Settings};
use crate::ground::net::address::Address;
use crate::ground::net::connector::MemoryNetwork;
use crate::ground::net::node_port::NodePort;
use crate::ground::net::resolver::Resolver;

/// Time until reachable nodes are linked and agree.
const SOON: Duration = Duration::from_secs(20);

/// Node with its own app server, so that messages must cross between nodes.
pub(super) struct FleetNode {
    pub(super) fixture: Fixture,
    pub(super) fleet: Fleet,
    pub(super) api: Router,
    pub(super) link: LinkedApp,
    address: Address,
    admin: Rc<AdminSockets>,
    serving: AbortHandle,
    running: AbortHandle,
}

/// In-memory sockets of an admin port.
#[derive(Default)]
struct AdminSockets {
    open: RefCell<Vec<AbortHandle>>,
    /// Whether the network is cut: sockets are accepted, but no data passes.
    is_cut: Cell<bool>,
}

fn address(number: u8) -> Address {
    format!("http://10.0.0.{number}:8090").parse().unwrap()
}

thread_local! {
    static IS_BY_BROKER: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Keeps the nodes of this test from using a broker: the test is about addresses, or about what a kernel answers for a
/// node that has crashed.
pub(super) fn by_network() {
    IS_BY_BROKER.set(Some(false));
}

/// Whether the nodes of this test use a broker in place of a network. By default, half of the tests do.
fn is_by_broker() -> bool {
    IS_BY_BROKER.get().unwrap_or_else(|| match std::env::var("TRUNKLINE_FLEET_BY") {
        Ok(way) => way == "nats",
        Err(_) => std::thread::current().name().unwrap_or_default().len().is_multiple_of(2),
    })
}

pub(super) fn peers(numbers: &[u8]) -> Settings {
    let peers = numbers.iter().map(|&number| address(number)).collect();
    let fleet = if is_by_broker() {
        FleetSettings { peers: Vec::new(), by_nats: true }
    } else {
        FleetSettings { peers, by_nats: false }
    };
    let relay = RelaySettings { hop_timeout: Duration::from_secs(5), ..RelaySettings::embedded() };
    Settings { fleet, relay, ..settings() }
}

impl FleetNode {
    pub(super) async fn start(network: &MemoryNetwork, number: u8, settings: impl Into<NodeSettings>) -> Self {
        Self::start_with(network, number, settings, |api| api).await
    }

    /// Starts a node with a single DNS name in `--peers`, which resolves to these addresses.
    async fn start_named(network: &MemoryNetwork, number: u8, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let fleet = FleetSettings { peers: vec!["http://nodes:8090".parse().unwrap()], by_nats: false };
        let settings = Settings { fleet, ..peers(&[]) };
        Self::start_by((Resolver::knowing(addresses), None), network, number, settings, |api| api).await
    }

    /// Starts a node with a custom API for other nodes.
    pub(super) async fn start_with(
        network: &MemoryNetwork,
        number: u8,
        settings: impl Into<NodeSettings>,
        layered: impl FnOnce(Router) -> Router,
    ) -> Self {
        Self::start_by((Resolver::default(), None), network, number, settings, layered).await
    }

    /// Starts a node with a store.
    pub(super) async fn start_stored(
        network: &MemoryNetwork,
        number: u8,
        settings: impl Into<NodeSettings>,
        engine: &MemoryEngine,
    ) -> Self {
        Self::start_by((Resolver::default(), Some(engine)), network, number, settings, |api| api).await
    }

    async fn start_by(
        (resolver, engine): (Resolver, Option<&MemoryEngine>),
        network: &MemoryNetwork,
        number: u8,
        settings: impl Into<NodeSettings>,
        layered: impl FnOnce(Router) -> Router,
    ) -> Self {
        let name = format!("n{number}");
        let (settings, access) = settings.into();
        let settings = (Settings { node: name.clone(), ..settings }, access);
        let mut fixture = Fixture::at(&format!("http://10.0.0.{number}:8080"), network, settings);
        if let Some(engine) = engine {
            let (keys, stores) = (&fixture.shared.settings.keys, &fixture.stores);
            let store = Store::in_memory(engine, keys, (&stores.admission, &stores.user_groups));
            tokio::spawn(store::keep(Some(store.clone()), fixture.shared.clone()));
            fixture.stores.store = Some(store);
        }
        let fleet = Fleet::new(fixture.shared.clone(), fixture.stores.clone(), ([10, 0, 0, number], 8090).into());
        let api = admin::api_for_nodes(fixture.observer_in(fleet.clone()), fixture.webhooks.clone())
            .route("/name", get(async || name));
        fleet.questions().serve_api(layered(api.clone()));
        let admin = Rc::<AdminSockets>::default();
        let serving = spawn_local(serve(network.clone(), address(number), fleet.clone(), admin.clone()));
        let serving = serving.abort_handle();
        let running = tokio::spawn(fleet::keep_fleet(fleet.clone(), resolver)).abort_handle();
        let link = fixture.server(&format!("app-{number}")).await;
        Self { fixture, fleet, api, link, address: address(number), admin, serving, running }
    }

    pub(super) fn observer(&self) -> Observer {
        self.fixture.observer_in(self.fleet.clone())
    }

    pub(super) async fn client(&mut self) -> Client {
        self.link.client().await
    }

    /// Members with their state as seen by this node.
    fn members(&self) -> Vec<(String, MemberState)> {
        let now_ms = self.fleet.members().now_ms();
        self.fleet.members().all().iter().map(|member| (member.name().to_owned(), member.state(now_ms))).collect()
    }

    fn sees_ready(&self, names: &[&str]) -> bool {
        let members = self.members();
        members.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied())
            && members.iter().all(|(_, state)| *state == MemberState::Ready)
    }

    /// Delivers a message as a REST request does. The inner future waits for all answers.
    async fn deliver(&self, message: ServiceMessage) -> impl Future<Output = FleetDelivery> + use<> {
        let entry = FleetEntry::from_fleet(&self.fleet);
        entry.begin_delivery(&entry.hub_named("chat"), message).await
    }

    fn send(&self, wanted: &[Wanted<'_>], message: &ServiceMessage) {
        FleetEntry::from_fleet(&self.fleet).relay("chat", wanted, message);
    }

    /// Crashes the node's part in the fleet: its admin port stops listening without a goodbye.
    fn crash(&self) {
        self.serving.abort();
        self.running.abort();
        self.cut(true);
    }

    /// Kills the node: its ports stop listening and all sockets of its admin port end.
    pub(super) fn kill(&self, network: &MemoryNetwork) {
        self.running.abort();
        drop(network.listen(&self.address));
        self.unplug(network);
        self.admin.open.borrow_mut().drain(..).for_each(|socket| socket.abort());
    }

    /// Stops listening at the client port.
    pub(super) fn unplug(&self, network: &MemoryNetwork) {
        drop(self.fixture.shared.settings.advertise.as_ref().map(|port| network.listen(port)));
    }

    /// Ends all sockets of the admin port. New sockets pass no data until the cut is repaired.
    pub(super) fn cut(&self, is_cut: bool) {
        self.admin.is_cut.set(is_cut);
        self.admin.open.borrow_mut().drain(..).for_each(|socket| socket.abort());
    }
}

/// Serves the admin port routes for nodes.
async fn serve(network: MemoryNetwork, address: Address, fleet: Fleet, sockets: Rc<AdminSockets>) {
    let accepted = network.listen(&address);
    let mut accepted = accepted_pipes(accepted, fleet.stores(), NodePort::Admin);
    let (keys, hellos) = (fleet.shared().settings.keys.clone(), HelloTable::default());
    let inside = match fleet.questions().api() {
        Some(api) => fleet::routes(fleet).merge(api),
        None => fleet::routes(fleet),
    };
    let open = move |request: Request| {
        let lock = ChannelLock { keys: &keys, peer_kind: PeerKind::NodeAdmin, names: OwnNames::Any, hellos: &hellos };
        let opened = open_channel(&request, lock, inside.clone(), || Ok(FromNode));
        std::future::ready(opened.unwrap_or_else(|refused| {
            assert_eq!(refused, ChannelRefused::Stranger);
            ::http::Response::builder().status(404).body(Body::empty()).unwrap()
        }))
    };
    let router = Router::new().route(CHANNEL_PATH, get(open));
    while let Some(stream) = accepted.next().await {
        let (router, is_cut) = (router.clone(), sockets.is_cut.get());
        let (client, mut server) = (stream, tokio::io::duplex(64 * 1024));
        let serving = spawn_local(async move {
            let mut client = client;
            let service = TowerToHyperService::new(router);
            let http = http1::Builder::new().serve_connection(TokioIo::new(server.1), service).with_upgrades();
            if is_cut {
                return std::future::pending().await;
            }
            let between = tokio::io::copy_bidirectional(&mut client, &mut server.0);
            let _ = tokio::join!(http, between);
        });
        sockets.open.borrow_mut().push(serving.abort_handle());
    }
}

/// Serves a node with another version: it greets, but opens no link.
async fn serve_version(network: MemoryNetwork, address: Address, wire: WireVersions) {
    let greeting = Greeting { name: "n5".into(), boot: "boot of n5".into(), wire, ..Greeting::default() };
    let inside = Router::new().route(FLEET_GREET_PATH, post(async move || greeting.to_json()));
    let (mut accepted, keys) = (network.listen(&address), settings().keys);
    while let Some(stream) = accepted.recv().await {
        let (keys, inside) = (keys.clone(), inside.clone());
        let open = move |request: Request| {
            let hellos = HelloTable::default();
            let lock =
                ChannelLock { keys: &keys, peer_kind: PeerKind::NodeAdmin, names: OwnNames::Any, hellos: &hellos };
            let opened = open_channel(&request, lock, inside.clone(), || Ok(()));
            std::future::ready(opened.unwrap())
        };
        let service = TowerToHyperService::new(Router::new().route(CHANNEL_PATH, get(open)));
        spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

/// Waits in virtual time until a condition holds.
pub(super) async fn until(within: Duration, what: &str, is_so: impl Fn() -> bool) {
    let last = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < last, "not within {within:?}: {what}");
        // sleep: virtual time; no event signals the state
        sleep(Duration::from_millis(10)).await;
    }
}

/// Creates a network with nodes 1 to `count`, each configured with all nodes.
pub(super) async fn nodes(count: u8) -> (MemoryNetwork, Vec<FleetNode>) {
    let (network, all) = (MemoryNetwork::default(), (1..=count).collect::<Vec<_>>());
    let mut nodes = Vec::new();
    for &number in &all {
        nodes.push(FleetNode::start(&network, number, peers(&all)).await);
    }
    linked(&nodes).await;
    (network, nodes)
}

pub(super) async fn linked(nodes: &[FleetNode]) {
    let names: Vec<String> = nodes.iter().map(|node| node.fixture.shared.settings.node.clone()).collect();
    until(SOON, "all are linked", || {
        nodes.iter().all(|node| {
            let own = &node.fixture.shared.settings.node;
            let others: Vec<_> = names.iter().filter(|name| *name != own).map(String::as_str).collect();
            node.sees_ready(&others) && node.fleet.members().agrees()
        })
    })
    .await;
    // Interests of the nodes are exchanged shortly afterwards.
    sleep(Duration::from_secs(2)).await; // sleep: as above
}

#[tokio::test(crate = "paused")]
async fn what_enters_at_one_node_reaches_the_clients_of_all_others_once_and_in_order() {
    let (_network, mut nodes) = nodes(3).await;
    let mut clients = Vec::new();
    for node in &mut nodes {
        clients.push(node.client().await);
    }
    linked(&nodes).await;
    for number in 0..100 {
        nodes[0].send(&[Wanted::Everyone], &broadcast(&number.to_string()));
    }
    for client in &mut clients[1..] {
        for number in 0..100 {
            assert_eq!(client.text().await, number.to_string());
        }
    }
    // A node relays only to other nodes; its own clients are served locally.
    let (own, node) = (&mut clients[0], &nodes[0]);
    own.fence(&node.link).await;
    for (client, node) in clients.iter_mut().zip(&nodes) {
        client.fence(&node.link).await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_message_is_relayed_only_to_nodes_with_receivers() {
    let (_network, mut nodes) = nodes(3).await;
    let mut member = nodes[1].client().await;
    let _stranger = nodes[2].client().await;
    nodes[1].link.join(&member.id, "red").await;
    linked(&nodes).await;
    let received = |node: &FleetNode| node.fleet.fleet_relay().counters.received.get();
    let before = [received(&nodes[1]), received(&nodes[2])];
    for _ in 0..50 {
        nodes[0].send(&[Wanted::Group("red")], &to_group("red", "hello"));
    }
    for _ in 0..50 {
        assert_eq!(member.text().await, "hello");
    }
    let crossed = received(&nodes[1]) - before[0];
    assert!((50..60).contains(&crossed), "{crossed}");
    let idle = received(&nodes[2]) - before[1];
    assert!(idle < 10, "{idle} messages came to a node that wants none");
}

#[tokio::test(crate = "paused")]
async fn new_subscriptions_apply_immediately_and_ended_ones_are_removed() {
    let (_network, mut nodes) = nodes(2).await;
    let mut client = nodes[1].client().await;
    linked(&nodes).await;
    nodes[1].link.join(&client.id, "late").await;
    nodes[0].send(&[Wanted::Group("late")], &to_group("late", "first"));
    assert_eq!(client.text().await, "first");
    client.close().await;
    let sent = |nodes: &[FleetNode]| nodes[0].fleet.fleet_relay().counters.sent.get();
    // The sweep runs every ten seconds.
    sleep(Duration::from_secs(15)).await; // sleep: longer than the sweep interval
    let before = sent(&nodes);
    for _ in 0..50 {
        nodes[0].send(&[Wanted::Group("late")], &to_group("late", "second"));
    }
    sleep(Duration::from_millis(5)).await; // sleep: time for one message to arrive
    assert!(sent(&nodes) - before < 10, "{}", sent(&nodes) - before);
}

#[tokio::test(crate = "paused")]
async fn links_that_are_cut_resume_and_lose_nothing() {
    let (_network, mut nodes) = nodes(2).await;
    let mut client = nodes[1].client().await;
    linked(&nodes).await;
    for number in 0..40 {
        nodes[0].send(&[Wanted::Everyone], &broadcast(&number.to_string()));
        if number % 10 == 5 {
            nodes[1].cut(number == 15);
        }
        // sleep: some messages meet an open link, others a cut one
        sleep(Duration::from_millis(700)).await;
    }
    for number in 0..40 {
        assert_eq!(client.text().await, number.to_string());
    }
    client.fence(&nodes[1].link).await;
    assert!(DropCause::ALL.iter().all(|&cause| nodes[0].fleet.fleet_relay().counters.dropped(cause) == 0));
}

#[tokio::test(crate = "paused")]
async fn only_a_node_that_is_cut_off_for_too_long_misses_messages() {
    let (_network, mut nodes) = nodes(3).await;
    let (mut lost, mut other) = (nodes[1].client().await, nodes[2].client().await);
    linked(&nodes).await;
    nodes[1].cut(true);
    until(SOON, "it is late", || nodes[0].members()[0].1 == MemberState::Late).await;
    for number in 0..60 {
        nodes[0].send(&[Wanted::Everyone], &broadcast(&number.to_string()));
        assert_eq!(other.text().await, number.to_string());
        // sleep: in total longer than a link survives without a socket
        sleep(Duration::from_secs(1)).await;
    }
    let dropped: u64 = DropCause::ALL.iter().map(|&cause| nodes[0].fleet.fleet_relay().counters.dropped(cause)).sum();
    assert!(dropped > 0);
    nodes[1].cut(false);
    linked(&nodes).await;
    nodes[0].send(&[Wanted::Everyone], &broadcast("back"));
    // Messages received before the link ended may arrive, in order and once.
    let mut heard = Vec::new();
    loop {
        let next = lost.text().await;
        if next == "back" {
            break;
        }
        heard.push(next.parse::<u64>().unwrap());
    }
    assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    assert_eq!(heard.len() as u64 + dropped, 60, "{heard:?}");
}

#[tokio::test(crate = "paused")]
async fn messages_for_a_node_that_reads_nothing_are_dropped_after_some_seconds_and_delay_no_other_node() {
    let (_network, mut nodes) = nodes(3).await;
    let (_stuck, mut other) = (nodes[1].client().await, nodes[2].client().await);
    linked(&nodes).await;
    nodes[1].cut(true);
    let long = "x".repeat(64 * 1024);
    for number in 0..200 {
        let message = broadcast(&format!("{number} {long}"));
        drop(nodes[0].deliver(message).await);
        assert_eq!(other.text().await.len(), number.to_string().len() + 1 + long.len());
    }
    assert!(nodes[0].fleet.fleet_relay().counters.dropped(DropCause::Full) > 100);
    let missed: Vec<_> = nodes[0].fleet.members().all().iter().map(|member| member.missed().is_some()).collect();
    assert_eq!(missed, [true, false], "a condition names the node");
    assert_eq!(nodes[0].deliver(broadcast("last")).await.await.missing, ["n2"]);
}

#[tokio::test(crate = "paused")]
async fn messages_beyond_the_queue_of_a_node_wait_for_it_and_none_is_lost() {
    let (_network, mut nodes) = nodes(3).await;
    let (mut away, mut other) = (nodes[1].client().await, nodes[2].client().await);
    linked(&nodes).await;
    nodes[1].cut(true);
    let [sender, back] = [Duration::ZERO, Duration::from_secs(3)].map(|wait| Instant::now() + wait);
    let long = "x".repeat(64 * 1024);
    let sending = async {
        for number in 0..200 {
            drop(nodes[0].deliver(broadcast(&format!("{number} {long}"))).await);
        }
        sender.elapsed()
    };
    let returning = async {
        // sleep: virtual time, in which the node is away
        sleep_until(back).await;
        nodes[1].cut(false);
    };
    let reading = async {
        for number in 0..200 {
            for client in [&mut away, &mut other] {
                assert!(client.text().await.starts_with(&format!("{number} ")), "{number}");
            }
        }
    };
    let (waited, (), ()) = tokio::join!(sending, returning, reading);
    assert!(waited >= Duration::from_secs(3), "the sender waits: {waited:?}");
    assert!(DropCause::ALL.iter().all(|&cause| nodes[0].fleet.fleet_relay().counters.dropped(cause) == 0));
}

#[tokio::test(crate = "paused")]
async fn questions_are_answered_by_each_node_and_the_missing_are_named() {
    let (_network, mut nodes) = nodes(3).await;
    let client = nodes[1].client().await;
    nodes[1].link.join(&client.id, "red").await;
    linked(&nodes).await;
    let check = |subject: &str| Check { subject: subject.into(), ack_id: 1 };
    let question = ServiceMessage::CheckConnectionExistenceWithAck(check(&client.id));
    let answers = FleetEntry::from_fleet(&nodes[0].fleet).ask("chat", &[Wanted::Everyone], &question).await;
    let found = |answer: &Result<Option<ServiceMessage>, NoAnswer>| match answer {
        Ok(Some(ServiceMessage::Ack(ack))) => ack.status == AckStatus::Ok,
        other => panic!("{other:?}"),
    };
    assert_eq!(answers.iter().map(|(node, answer)| (node.name(), found(answer))).collect::<Vec<_>>(), [("n2", true)]);

    let join = GroupChange { connection_id: client.id.as_str().into(), group: Some("blue".into()), ack_id: 2 };
    FleetEntry::from_fleet(&nodes[0].fleet)
        .ask("chat", &[Wanted::Everyone], &ServiceMessage::JoinGroupWithAck(join))
        .await;
    let count =
        FleetEntry::from_fleet(&nodes[0].fleet).ask("chat", &[Wanted::Group("blue")], &to_group("blue", "hi")).await;
    let Ok(Some(ServiceMessage::Ack(ack))) = &count[0].1 else { panic!("{count:?}") };
    let page = MemberPage::from_payload(ack.payload.as_ref().unwrap()).unwrap();
    assert_eq!(page.count, Some(1));

    let unknown = FleetEntry::from_fleet(&nodes[0].fleet).ask("nothing", &[], &question).await;
    assert!(unknown.iter().all(|(_, answer)| matches!(answer, Ok(None))), "{unknown:?}");
    nodes[2].cut(true);
    let names = nodes[0].fleet.request_all(&PeerRequest::get("/name"), Duration::from_secs(5)).await;
    let names: Vec<_> = names
        .iter()
        .map(|(node, answer)| (node.name(), answer.as_ref().map(|answer| answer.status).map_err(|&why| why)))
        .collect();
    assert_eq!(names, [("n2", Ok(StatusCode::OK)), ("n3", Err(NoAnswer::Late))]);
}

#[tokio::test(crate = "paused")]
async fn a_client_at_another_node_is_asked_for_a_result() {
    let (_network, mut nodes) = nodes(3).await;
    let mut client = nodes[2].client().await;
    linked(&nodes).await;
    let invoke = async |fleet: Fleet, hub: &str, id: &str| {
        let fleet = FleetEntry::from_fleet(&fleet);
        let hub = fleet.hub_named(hub);
        fleet.invoke_client(&hub, id, |_| json("Name"), Duration::from_secs(30)).await
    };
    let (fleet, id) = (nodes[0].fleet.clone(), client.id.clone());
    let asking = spawn_local(async move { invoke(fleet, "chat", &id).await });
    assert_eq!(client.text().await, "Name");
    // Its app server is notified, and forwards the client's result.
    let ServiceMessage::ClientInvocation(told) = nodes[2].link.next().await else { panic!("the app is not told") };
    let answer = ServiceMessage::ClientCompletion(ClientCompletion {
        invocation_id: told.invocation_id,
        connection_id: told.connection_id,
        caller_server_id: told.caller_server_id,
        protocol: "json".into(),
        payload: Bytes::from_static(b"ann"),
    });
    nodes[2].link.send(answer).await;
    let completion = Bytes::from_static(b"ann");
    assert_eq!(asking.await.unwrap(), InvocationOutcome::Completed { protocol: "json".into(), completion });
    let begun = Instant::now();
    for hub in ["chat", "nothing"] {
        let outcome = invoke(nodes[0].fleet.clone(), hub, "nobody at all, and long enough").await;
        assert_eq!(outcome, InvocationOutcome::NotFound { missing: Vec::new() });
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody is waited for");
}

#[tokio::test(crate = "paused")]
async fn one_address_is_enough_to_find_all_and_a_node_under_two_addresses_is_one() {
    let network = MemoryNetwork::default();
    let one = FleetNode::start(&network, 1, peers(&[1, 2])).await;
    let two = FleetNode::start(&network, 2, peers(&[1])).await;
    // The third node is configured with the first node, but not the other way round.
    let three = FleetNode::start(&network, 3, peers(&[1, 9])).await;
    // Second address of the first node.
    spawn_local(serve(network.clone(), address(9), one.fleet.clone(), Rc::default()));
    linked(&[one, two, three]).await;
}

/// IPv6 address of node 1.
const V6: &str = "[2001:db8::1]:8090";
const V6_URL: &str = "http://[2001:db8::1]:8090";

#[tokio::test(crate = "paused")]
async fn a_node_on_one_family_is_found_whichever_comes_first_and_the_other_is_no_problem() {
    by_network();
    for addresses in [[V6, "10.0.0.1:8090"], ["10.0.0.1:8090", V6]] {
        let network = MemoryNetwork::default();
        let one = FleetNode::start(&network, 1, peers(&[1])).await;
        let two = FleetNode::start_named(&network, 2, &addresses).await;
        let nodes = [one, two];
        linked(&nodes).await;
        // sleep: longer than it takes to report a problem
        sleep(Duration::from_secs(60)).await;
        assert_eq!(nodes[1].fleet.members().unreachable(), []);
    }
}

#[tokio::test(crate = "paused")]
async fn the_link_to_a_node_moves_to_its_other_address_and_loses_nothing() {
    let network = MemoryNetwork::default();
    let one = FleetNode::start(&network, 1, peers(&[1])).await;
    spawn_local(serve(network.clone(), V6_URL.parse().unwrap(), one.fleet.clone(), Rc::default()));
    let two = FleetNode::start_named(&network, 2, &["10.0.0.1:8090", V6]).await;
    let mut nodes = [one, two];
    linked(&nodes).await;
    let mut client = nodes[0].client().await;
    linked(&nodes).await;
    // sleep: longer than it takes to greet the address of a linked node
    sleep(Duration::from_secs(20)).await;
    network.set_cut(&address(1), true);
    nodes[0].cut(false);
    for number in 0..60 {
        nodes[1].send(&[Wanted::Everyone], &broadcast(&number.to_string()));
        assert_eq!(client.text().await, number.to_string());
        assert_eq!(nodes[1].members(), [("n1".into(), MemberState::Ready)]);
        // sleep: in total longer than a link survives without a socket
        sleep(Duration::from_secs(1)).await;
    }
    assert!(DropCause::ALL.iter().all(|&cause| nodes[1].fleet.fleet_relay().counters.dropped(cause) == 0));
}

#[tokio::test(crate = "paused")]
async fn nodes_that_have_removed_each_other_discover_each_other_again() {
    let network = MemoryNetwork::default();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        // All nodes know the first, and discover the others through it.
        nodes.push(FleetNode::start(&network, number, peers(&[1])).await);
    }
    linked(&nodes).await;
    nodes[1..].iter().for_each(|node| node.cut(true));
    // Links to the first node stay up, so no node greets it again.
    let is_forgotten = |node: &FleetNode, other: &str| {
        let members = node.fleet.members().all();
        members.iter().all(|member| member.name() != other || !member.links.are_complete())
    };
    until(Duration::from_secs(300), "they are strangers", || {
        is_forgotten(&nodes[1], "n3") && is_forgotten(&nodes[2], "n2")
    })
    .await;
    // sleep: longer than addresses learned only from members are dialled
    sleep(Duration::from_secs(300)).await;
    nodes.iter().for_each(|node| node.cut(false));
    linked(&nodes).await;
}

#[tokio::test(crate = "paused")]
async fn other_servers_other_fleets_and_other_versions_are_distinguished_in_the_log() {
    by_network();
    let (network, nodes) = nodes(1).await;
    let keys = AccessKeys::new(vec![AccessKey::new("the access key of another fleet").unwrap()]).unwrap();
    let other = FleetNode::start(&network, 2, Settings { keys, ..peers(&[1, 3, 4]) }).await;
    let newer = FleetNode::start(&network, 6, peers(&[5])).await;
    spawn_local(serve_version(network.clone(), address(5), WireVersions { oldest: 2, newest: 3 }));
    // One peer without HTTP, and one where nothing listens.
    let mut garbage = network.listen(&address(3));
    spawn_local(async move {
        while let Some(mut stream) = garbage.recv().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    until(SOON, "all problems are found", || other.fleet.members().unreachable().len() == 3).await;
    let problems = other.fleet.members().unreachable();
    let problem = |number: u8| {
        let url = address(number).to_string();
        problems.iter().find(|problem| problem.address == url).map(|problem| problem.text.as_str()).unwrap()
    };
    assert!(problem(1).contains("another access key"), "{problems:?}");
    assert!(problem(3).contains("no HTTP answer"), "{problems:?}");
    assert!(problem(4).contains("refused"), "{problems:?}");
    until(SOON, "the version is told", || !newer.fleet.members().unreachable().is_empty()).await;
    let version = newer.fleet.members().unreachable()[0].text.clone();
    let told = "the node supports versions 2 to 3 of the node messages, but this node 1 to 1: upgrade the older \
                    one";
    assert_eq!(version, told);
    assert!([&nodes[0], &other, &newer].iter().all(|node| node.fleet.members().all().is_empty()));
}

#[tokio::test(crate = "paused")]
async fn a_node_that_leaves_is_gone_at_once_and_one_that_starts_again_is_another() {
    by_network();
    let (network, mut nodes) = nodes(3).await;
    nodes[1].fixture.shared.begin_drain();
    until(Duration::from_secs(3), "it is draining", || nodes[0].members()[0] == ("n2".into(), MemberState::Draining))
        .await;
    nodes[1].fleet.members().leave().await;
    until(Duration::from_secs(2), "it is gone", || nodes[0].members().len() == 1).await;
    drop(network.listen(&address(2)));
    assert!(nodes[0].link.crashes().is_empty(), "it has said goodbye");
    let former = nodes[2].fixture.shared.boot.clone();
    // Crash: its sockets are gone, and a new process has its address.
    nodes[2].running.abort();
    nodes[2].cut(true);
    let again = FleetNode::start(&network, 3, peers(&[1, 2, 3])).await;
    until(SOON, "the new start is linked", || {
        let members = nodes[0].fleet.members().all();
        members.len() == 1 && members[0].boot() != former && nodes[0].sees_ready(&["n3"])
    })
    .await;
    assert!(again.fleet.members().find(&former).is_none());
    nodes[0].link.fence().await;
    assert_eq!(nodes[0].link.crashes(), [former]);
}

#[tokio::test(crate = "paused")]
async fn app_servers_are_notified_of_a_crashed_node_and_not_of_a_disconnected_one() {
    by_network();
    let (_network, mut nodes) = nodes(3).await;
    let doomed = nodes[2].fixture.shared.boot.clone();
    nodes[2].cut(true);
    // sleep: virtual time, to prove that nothing arrives
    sleep(Duration::from_secs(20)).await;
    for node in &mut nodes {
        node.link.fence().await;
        assert!(node.link.crashes().is_empty());
    }
    nodes[2].cut(false);
    linked(&nodes).await;
    nodes[2].crash();
    sleep(Duration::from_secs(3)).await; // sleep: as above
    for node in &mut nodes[..2] {
        node.link.fence().await;
        assert_eq!(node.link.crashes(), [&*doomed]);
    }
    // Reported once, however long the node is away.
    sleep(Duration::from_secs(60)).await; // sleep: as above
    nodes[0].link.fence().await;
    assert!(nodes[0].link.crashes().is_empty());
}

#[tokio::test(crate = "paused")]
async fn a_node_that_refuses_and_is_linked_all_the_same_has_not_crashed() {
    let (_network, mut nodes) = nodes(2).await;
    nodes[1].serving.abort();
    nodes[1].cut(true);
    // sleep: virtual time, to prove that nothing arrives
    sleep(Duration::from_secs(20)).await;
    nodes[0].link.fence().await;
    assert!(nodes[0].link.crashes().is_empty());
}

#[tokio::test(crate = "paused")]
async fn nodes_that_see_different_members_report_it() {
    let (_network, nodes) = nodes(3).await;
    // The third node can be reached only over links that it dialled itself.
    nodes[2].cut(true);
    nodes[1].cut(true);
    until(Duration::from_secs(60), "the first sees that they differ", || !nodes[0].fleet.members().agrees()).await;
    nodes.iter().for_each(|node| node.cut(false));
    linked(&nodes).await;
}

#[tokio::test(crate = "paused")]
async fn a_broker_that_loses_messages_and_has_other_clients_loses_doubles_and_reorders_nothing() {
    IS_BY_BROKER.set(Some(true));
    let (network, mut nodes) = nodes(3).await;
    let engine: MemoryEngine = network.shared();
    let mut clients = [nodes[1].client().await, nodes[2].client().await];
    linked(&nodes).await;
    let ignored = || nodes.iter().map(|node| node.fleet.broker().unwrap().counters().broker_ignored.get()).sum::<u64>();
    let before = ignored();
    for number in 0..200 {
        if number % 20 == 0 {
            engine.lose_message_after(number % 7);
        }
        engine.publish_everywhere(&Bytes::from_static(b"rubbish of another client of the account"));
        nodes[number % 2 * 2].send(&[Wanted::Everyone], &broadcast(&number.to_string()));
        assert_eq!(clients[0].text().await, number.to_string());
    }
    assert!(ignored() > before);
    let gaps: u64 = nodes.iter().map(|node| node.fleet.broker().unwrap().counters().broker_gaps.get()).sum();
    assert!(gaps > 0, "messages were lost");
    for number in (0..200).step_by(2) {
        assert_eq!(clients[1].text().await, number.to_string());
    }
    assert!(DropCause::ALL.iter().all(|&cause| nodes[0].fleet.fleet_relay().counters.dropped(cause) == 0));
}

#[tokio::test(crate = "paused")]
async fn copies_of_all_messages_of_a_broker_open_nothing_and_change_nothing() {
    IS_BY_BROKER.set(Some(true));
    let network = MemoryNetwork::default();
    let engine: MemoryEngine = network.shared();
    let copies = engine.record_messages();
    let mut nodes = Vec::new();
    for number in 1..=2 {
        nodes.push(FleetNode::start(&network, number, peers(&[])).await);
    }
    let mut client = nodes[1].client().await;
    linked(&nodes).await;
    let count = copies.lock().unwrap().len();
    let subscribed = engine.subscriptions();
    assert!(count > 20, "{count}");
    for _ in 0..10 {
        let all: Vec<_> = copies.lock().unwrap()[..count].to_vec();
        for (subject, message) in all {
            engine.publish_copy(&subject, &message);
        }
        // sleep: virtual time, until the nodes have read the copies
        sleep(Duration::from_secs(1)).await;
    }
    assert!(engine.subscriptions() <= subscribed, "no socket was opened");
    nodes[0].send(&[Wanted::Everyone], &broadcast("still here"));
    assert_eq!(client.text().await, "still here");
    assert!(nodes[0].sees_ready(&["n2"]) && nodes[1].sees_ready(&["n1"]));
}

#[tokio::test(crate = "paused")]
async fn a_broker_that_is_away_for_twenty_seconds_loses_nothing() {
    IS_BY_BROKER.set(Some(true));
    let (network, mut nodes) = nodes(3).await;
    let engine: MemoryEngine = network.shared();
    let mut clients = [nodes[1].client().await, nodes[2].client().await];
    linked(&nodes).await;
    engine.set_away(Some("gone"));
    let begun = Instant::now();
    for number in 0..20 {
        nodes[0].send(&[Wanted::Everyone], &broadcast(&number.to_string()));
        sleep(Duration::from_secs(1)).await; // sleep: virtual time, in which the broker is away
    }
    assert!(nodes[0].members().iter().all(|(_, state)| *state == MemberState::Late), "{:?}", nodes[0].members());
    engine.set_away(None);
    for client in &mut clients {
        for number in 0..20 {
            assert_eq!(client.text().await, number.to_string());
        }
    }
    linked(&nodes).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
