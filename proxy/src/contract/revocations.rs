//! Revocations: invalidated access tokens, closed connections, and distribution to other nodes.

use std::time::Duration;

use ::http::StatusCode;
use tokio::time::sleep;
use trunkline_protocol::access_token::{self, TokenTimes};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::NodePhase;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{ConnectionMoved, FlowOperation, MoveConnection, ServiceMessage};

use super::client::{Client, JSON_HANDSHAKE, Received};
use super::closes::cause_of;
use super::fixture::{Fixture, KEY, paused, settings, token_of};
use super::fleet_nodes::{FleetNode, linked, nodes, peers, until};
use super::http::{exchange, negotiate};
use super::hub_message::flow;
use super::moves::come_back;
use super::scene::{LinkedApp, chat, chat_and_news, shop};
use crate::edge::observer::{RevocationOrder, RevocationReport, RevokedTokens};
use crate::fleet::own_phase;
use crate::ground::clock::{unix_ms, unix_seconds};

/// Time for reachable nodes to exchange changes.
const SOON: Duration = Duration::from_secs(20);

/// Ages in seconds: of the tokens to revoke, and of the newest revoked token.
const OLD_S: u64 = 100;
const VOID_S: u64 = 50;

/// Builds a query with an access token of this age in seconds.
fn issued(user: &str, ago_s: u64) -> String {
    let now_s = unix_seconds();
    let times = TokenTimes { issued_s: Some(now_s - ago_s), expires_s: now_s + 3600 };
    format!("access_token={}", access_token::sign(&AccessKey::new(KEY).unwrap(), user, &[], times))
}

/// Request to revoke the tokens of a user, or of all users, and to close the user's connections.
fn order(user: Option<&str>) -> RevocationOrder {
    let now_s = unix_seconds();
    let tokens = RevokedTokens {
        user: user.map(str::to_owned),
        issued_before: now_s - VOID_S,
        kept_until: now_s + 3600,
        ..RevokedTokens::default()
    };
    RevocationOrder { tokens, close: user.is_some(), closed_ms: unix_ms() }
}

async fn may_connect(fixture: &Fixture, query: &str) -> bool {
    match Client::upgrade(fixture, &format!("/chat?{query}")).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status, 401);
            false
        }
    }
}

#[tokio::test(crate = "paused")]
async fn a_revoked_token_is_refused_by_name_and_a_new_log_in_is_accepted() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let observer = fixture.observer();
    let (old, new) = (issued("ann", OLD_S), issued("ann", 0));
    // The client has negotiated, but not connected.
    let (_, token) = negotiate(&fixture, "/chat", &format!("&{old}")).await;
    // The clock is read once: a second may end between two readings.
    let order = order(Some("ann"));
    let tokens = order.tokens.clone();
    let report = observer.revoker.revoke(order).await.unwrap();
    assert_eq!((report.nodes, report.missing, report.clients), (1, Vec::<String>::new(), 0));
    let (status, text) = exchange(&fixture, "POST", &format!("/chat/negotiate?negotiateVersion=1&{old}"), "").await;
    assert_eq!((status, text.contains("it was revoked")), (StatusCode::UNAUTHORIZED, true), "{text}");
    assert_eq!(Client::upgrade(&fixture, &format!("/chat?id={token}&{old}")).await.err(), Some(401));
    let undated = format!("access_token={}", token_of("ann"));
    for void in [&old, &undated] {
        assert!(!may_connect(&fixture, void).await, "{void}");
    }
    let others = format!("access_token={}", token_of("bob"));
    for good in [&new, &others, &issued("bob", OLD_S), &String::new()] {
        assert!(may_connect(&fixture, good).await, "{good}");
    }
    let (_, token) = negotiate(&fixture, "/chat", &format!("&{new}")).await;
    assert!(Client::upgrade(&fixture, &format!("/chat?id={token}&{new}")).await.is_ok());
    let refused: Vec<_> = fixture.admission.verifier.refused().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refused, [("revoked", 4)]);
    assert_eq!(fixture.shared.counters_of(0).requests_refused.of(Cause::TokenRevoked), 4);
    let kept = observer.revoker.list(Some("ann"), 10);
    assert_eq!((kept.revocations, kept.total), (vec![tokens], 1));
}

#[tokio::test(crate = "paused")]
async fn an_app_that_decides_about_clients_is_not_asked_about_a_revoked_token() {
    let (fixture, link) = Fixture::start().with_app(chat(|hub| hub.asks_app = true)).await;
    link.app.decide(Some("bob"));
    fixture.observer().revoker.revoke(order(Some("ann"))).await.unwrap();
    assert!(!may_connect(&fixture, &issued("ann", OLD_S)).await, "it would have let her in as bob");
    assert!(may_connect(&fixture, &issued("ann", 0)).await);
}

#[tokio::test(crate = "paused")]
async fn the_connections_of_the_user_close_if_the_operator_wants_that_and_no_others() {
    let fixture = Fixture::with(settings(), 2);
    let (_app, [mut chat, mut news]) = fixture.app_of(chat_and_news()).await;
    let observer = fixture.observer();
    let target = |hub: &str, user: &str| format!("/{hub}?{}", issued(user, OLD_S));
    let mut hers = Vec::new();
    for _ in 0..3 {
        hers.push(Client::connect(&fixture, &mut chat, &target("chat", "ann")).await);
    }
    hers.push(Client::connect(&fixture, &mut news, &target("news", "ann")).await);
    let mut bob = Client::connect(&fixture, &mut chat, &target("chat", "bob")).await;
    let mut nobody = Client::connect(&fixture, &mut chat, "/chat").await;
    let left_open = observer.revoker.revoke(RevocationOrder { close: false, ..order(Some("ann")) }).await.unwrap();
    assert_eq!(left_open.clients, 0);
    for (index, client) in hers.iter_mut().enumerate() {
        client.fence(if index < 3 { &chat } else { &news }).await;
    }
    let closed = observer.revoker.revoke(order(Some("ann"))).await.unwrap();
    assert_eq!(closed.clients, 4);
    for client in &mut hers {
        let told = client.text().await;
        assert!(told.starts_with("{\"type\":7") && !told.contains("allowReconnect"), "{told}");
        assert!(matches!(client.next().await, Received::End(_)));
    }
    for link in [&mut chat, &mut news] {
        assert_eq!(cause_of(&link.close().await).as_deref(), Some("token_revoked"));
    }
    bob.fence(&chat).await;
    nobody.fence(&chat).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_connects_while_its_token_is_revoked_has_to_show_one_again() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut ann = Client::upgrade(&fixture, &format!("/chat?{}", issued("ann", OLD_S))).await.unwrap();
    let mut bob = Client::upgrade(&fixture, &format!("/chat?{}", issued("bob", OLD_S))).await.unwrap();
    // There is no connection to close yet.
    assert_eq!(fixture.observer().revoker.revoke(order(Some("ann"))).await.unwrap().clients, 0);
    ann.send(JSON_HANDSHAKE).await;
    assert_eq!(ann.next().await, Received::Text("{}".into()));
    assert_eq!(ann.next().await, Received::Text("{\"type\":7,\"allowReconnect\":true}".into()));
    assert!(matches!(ann.next().await, Received::End(_)));
    bob.send(JSON_HANDSHAKE).await;
    bob.accept(&mut link).await;
    bob.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_revocation_without_a_user_voids_all_tokens_immediately() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    fixture.observer().revoker.revoke(order(None)).await.unwrap();
    for user in ["ann", "bob"] {
        assert!(!may_connect(&fixture, &issued(user, OLD_S)).await);
        assert!(may_connect(&fixture, &issued(user, 0)).await);
    }
    assert!(may_connect(&fixture, "").await, "whoever shows no token has none that is void");
}

#[tokio::test(crate = "paused")]
async fn what_is_revoked_at_one_node_is_void_at_all_and_closes_connections_everywhere() {
    let (_network, mut nodes) = nodes(3).await;
    let target = format!("/chat?{}", issued("ann", OLD_S));
    let mut clients = Vec::new();
    for node in &mut nodes {
        clients.push(Client::connect(&node.fixture, &mut node.link, &target).await);
    }
    let observer = nodes[1].observer();
    let order = order(Some("ann"));
    let tokens = order.tokens.clone();
    let report = observer.revoker.revoke(order).await.unwrap();
    let all = RevocationReport { tokens, nodes: 3, missing: Vec::new(), clients: 3, stored: None };
    assert_eq!(report, all);
    for (client, node) in clients.iter_mut().zip(&nodes) {
        assert!(client.text().await.starts_with("{\"type\":7"));
        assert!(!may_connect(&node.fixture, &issued("ann", OLD_S)).await);
        assert!(may_connect(&node.fixture, &issued("ann", 0)).await);
    }
}

#[tokio::test(crate = "paused")]
async fn a_starting_node_has_all_revocations_before_it_accepts_clients() {
    let (network, mut nodes) = nodes(2).await;
    nodes[0].observer().revoker.revoke(order(Some("ann"))).await.unwrap();
    let late = FleetNode::start(&network, 3, peers(&[1, 2, 3])).await;
    let is_ready = || own_phase(&late.fixture.shared) == NodePhase::Ready;
    until(SOON, "the third node takes clients", is_ready).await;
    assert!(!may_connect(&late.fixture, &issued("ann", OLD_S)).await);
    assert_eq!(late.fixture.admission.revocations.all(unix_seconds()).len(), 1);
    nodes.push(late);
    linked(&nodes).await;
    let observer = nodes[2].observer();
    assert_eq!(observer.revoker.revoke(order(Some("bob"))).await.unwrap().nodes, 3);
}

#[tokio::test(crate = "paused")]
async fn a_disconnected_node_is_missing_and_gets_revocations_on_its_return() {
    let (_network, nodes) = nodes(2).await;
    nodes[1].cut(true);
    let observer = nodes[0].observer();
    let report = observer.revoker.revoke(order(Some("ann"))).await.unwrap();
    assert_eq!((report.nodes, report.missing), (1, vec!["n2".to_owned()]));
    assert!(may_connect(&nodes[1].fixture, &issued("ann", OLD_S)).await, "it can't know yet");
    nodes[1].cut(false);
    let kept = || nodes[1].fixture.admission.revocations.all(unix_seconds()).len() == 1;
    until(SOON, "it has learnt it", kept).await;
    assert!(!may_connect(&nodes[1].fixture, &issued("ann", OLD_S)).await);
}

#[tokio::test(crate = "paused")]
async fn a_node_that_was_away_closes_the_connections_that_were_open_then_when_it_is_back() {
    let (_network, mut nodes) = nodes(2).await;
    let target = |ago_s| format!("/chat?{}", issued("ann", ago_s));
    let away = &mut nodes[1];
    let mut old = Client::connect(&away.fixture, &mut away.link, &target(OLD_S)).await;
    away.cut(true);
    let observer = nodes[0].observer();
    assert_eq!(observer.revoker.revoke(order(Some("ann"))).await.unwrap().clients, 0);
    // sleep: link sessions end, together with their unsent messages
    sleep(Duration::from_secs(120)).await;
    let away = &mut nodes[1];
    let mut late = Client::connect(&away.fixture, &mut away.link, &target(OLD_S)).await;
    away.cut(false);
    for client in [&mut old, &mut late] {
        assert!(client.text().await.starts_with("{\"type\":7"));
        assert!(matches!(client.next().await, Received::End(_)));
        assert_eq!(cause_of(&nodes[1].link.close().await).as_deref(), Some("token_revoked"));
    }
    // Closed only once: a connection opened with a valid token survives further reconnects of the nodes.
    let back = &mut nodes[1];
    let mut good = Client::connect(&back.fixture, &mut back.link, &target(0)).await;
    back.cut(true);
    // sleep: as above
    sleep(Duration::from_secs(120)).await;
    back.cut(false);
    linked(&nodes).await;
    good.fence(&nodes[1].link).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_user_the_app_has_named_before_the_revocation_has_to_negotiate_again() {
    let (fixture, link) = Fixture::start().with_app(chat(|hub| hub.asks_app = true)).await;
    link.app.decide(Some("ann"));
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let (_, of_before) = negotiate(&fixture, "/chat", "").await;
    let revoked = |issued_before| {
        let mut order = order(Some("ann"));
        order.tokens.issued_before = issued_before;
        order
    };
    fixture.observer().revoker.revoke(revoked(unix_seconds() - VOID_S)).await.unwrap();
    assert!(Client::upgrade(&fixture, &format!("/chat?id={token}")).await.is_ok());
    fixture.observer().revoker.revoke(revoked(unix_seconds() + 1)).await.unwrap();
    assert_eq!(Client::upgrade(&fixture, &format!("/chat?id={of_before}")).await.err(), Some(401));
}

/// Two nodes, and an app server with a link to each. It names all clients ann, and allows moves.
struct Movers {
    nodes: Vec<FleetNode>,
    old: LinkedApp,
    new: LinkedApp,
}

impl Movers {
    async fn open() -> Self {
        let (_, nodes) = nodes(2).await;
        let hub = || HubManifest { asks_app: true, ..shop() };
        let old = nodes[0].fixture.server_with("shop-1", hub()).await;
        let new = nodes[1].fixture.server_with("shop-1", hub()).await;
        [&old, &new].iter().for_each(|link| link.app.decide(Some("ann")));
        Self { nodes, old, new }
    }

    /// Connects at the first node and loses the socket. Returns the connection id and the client's reconnect target.
    async fn lost_client(&mut self) -> (String, String) {
        let (client, target) = Client::connect_stateful(&self.nodes[0].fixture, &mut self.old, "/shop").await;
        (client.id.clone(), target)
    }

    /// Closes the user's connections at one node, before the other node is notified. Returns the number of closed
    /// connections.
    async fn close_at(&self, node: usize) -> u64 {
        self.nodes[node].observer().revoker.revoke_own(&order(Some("ann"))).await.unwrap().clients
    }
}

#[tokio::test(crate = "paused")]
async fn a_connection_does_not_move_to_a_node_that_has_closed_those_of_its_user() {
    let mut movers = Movers::open().await;
    let (id, target) = movers.lost_client().await;
    assert_eq!(movers.close_at(1).await, 0);
    assert_eq!(come_back(&movers.nodes[1], &target).await.unwrap().err(), Some(404));
    // The app server was not asked to release the connection.
    movers.old.fence().await;
    assert_eq!(movers.close_at(0).await, 1);
    let end = movers.old.close().await;
    assert_eq!((&*end.connection_id, cause_of(&end).as_deref()), (&*id, Some("token_revoked")));
    movers.new.fence().await;
}

#[tokio::test(crate = "paused")]
async fn an_app_server_is_notified_of_a_connection_closed_during_its_move() {
    let mut movers = Movers::open().await;
    let (id, target) = movers.lost_client().await;
    let coming = come_back(&movers.nodes[1], &target);
    assert_eq!(movers.old.next().await, flow(&id, FlowOperation::Pause));
    movers.close_at(1).await;
    movers.old.send(flow(&id, FlowOperation::PauseAck)).await;
    let moving = MoveConnection { connection_id: id.as_str().into() };
    assert_eq!(movers.old.next().await, ServiceMessage::MoveConnection(moving));
    let moved = ConnectionMoved { connection_id: id.as_str().into(), epoch: 1 };
    movers.old.send(ServiceMessage::ConnectionMoved(moved)).await;
    assert_eq!(coming.await.unwrap().err(), Some(404));
    // The connection was released, but not taken over.
    movers.close_at(0).await;
    assert_eq!(movers.old.close().await.connection_id, id);
    movers.new.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_request_forwarded_by_a_node_without_the_revocation_gets_a_reconnect() {
    let (_network, mut nodes) = nodes(2).await;
    let old = issued("ann", OLD_S);
    let (_, token) = negotiate(&nodes[0].fixture, "/chat", &format!("&{old}")).await;
    let target = format!("/chat?id={token}&{old}");
    let owner = nodes[0].observer();
    owner.revoker.revoke_own(&order(Some("ann"))).await.unwrap();
    let by = &nodes[1].fixture;
    assert_eq!(exchange(by, "GET", &target, "").await.0, StatusCode::OK);
    assert_eq!(exchange(by, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
    let (_, told) = exchange(by, "GET", &target, "").await;
    assert_eq!(told, "{}\u{1e}{\"type\":7,\"allowReconnect\":true}\u{1e}");
    nodes[0].link.fence().await;
}
