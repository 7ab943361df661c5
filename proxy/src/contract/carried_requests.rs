//! Several nodes: requests forwarded to the owner of their connection, and tokens used at another node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::StatusCode;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use trunkline_protocol::access_token;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::manifest::{HubManifest, USER_ID_CLAIM};
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::token::ConnectionToken;

use super::app::{App, AppLink, broadcast};
use super::client::{Client, JSON_HANDSHAKE};
use super::drains::{ANSWER, CALL, LEAVE};
use super::fixture::{Fixture, KEY, paused, settings, token_of, token_of_roles};
use super::fleet_nodes::{FleetNode as LinkedNode, linked, peers};
use super::http::{HttpConnection, exchange, negotiate, request, request_with};
use super::http_transports::{EventClient, poller_by};
use crate::edge::frontend::{end_gets_of_lost_owners, release_carried};
use crate::engine::shard::Reachability;
use crate::ground::clock::unix_seconds;
use crate::ground::config::{RelaySettings, Settings};
use crate::ground::metrics::{HopRefusal, RelayFailure, ReservationOutcome};
use crate::ground::net::address::Address;
use crate::ground::net::connector::MemoryNetwork;
use crate::ground::net::resolver::Resolver;

const OWNER: &str = "http://10.0.0.1:8080";
const OTHER: &str = "http://10.0.0.2:8080";
const THIRD: &str = "http://10.0.0.3:8080";

/// Node with an app server for two hubs, one with a negotiate handler.
struct FleetNode {
    fixture: Fixture,
    app: App,
    links: [AppLink; 2],
}

impl FleetNode {
    async fn start(address: &str, network: &MemoryNetwork) -> Self {
        Self::named(address, (address, Resolver::default()), network).await
    }

    async fn named(name: &str, at: (&str, Resolver), network: &MemoryNetwork) -> Self {
        let relay = RelaySettings { hop_timeout: Duration::from_secs(5), ..RelaySettings::embedded() };
        let fixture = Fixture::named(name, at, network, Settings { relay, ..settings() });
        let asked = HubManifest { asks_app: true, ..HubManifest::new("asked", "/asked") };
        let mut app = fixture.app("app-1", vec![HubManifest::new("chat", "/chat"), asked]);
        let links = [app.link().await, app.link().await];
        Self { fixture, app, links }
    }

    /// Sets the user that the app returns from now on; `None` refuses all clients.
    fn decide(&self, user: Option<&str>) {
        let decision = user.map(|user| Decision { user: Some(user.into()), ..Decision::default() });
        *self.app.dialler.decision.lock().unwrap() = decision;
    }

    /// Negotiates this many connections; returns the targets of their upgrades.
    async fn targets(&self, count: usize) -> Vec<String> {
        let mut targets = Vec::new();
        while targets.len() < count {
            targets.push(format!("/chat?id={}", negotiate(&self.fixture, "/chat", "").await.1));
        }
        targets
    }

    fn hops(&self) -> u64 {
        self.fixture.shared.counters_of(0).relay.hops.get()
    }

    fn hops_refused(&self, refusal: HopRefusal) -> u64 {
        self.fixture.shared.counters_of(0).relay.hops_refused.of(refusal).get()
    }

    fn reservations(&self, outcome: ReservationOutcome) -> u64 {
        self.fixture.shared.counters_of(0).relay.reservations.of(outcome).get()
    }

    async fn status(&self, method: &str, target: &str) -> u16 {
        exchange(&self.fixture, method, target, "").await.0.as_u16()
    }
}

/// Network with two nodes.
async fn owner_and_other() -> (MemoryNetwork, FleetNode, FleetNode) {
    let network = MemoryNetwork::default();
    let (owner, other) = (FleetNode::start(OWNER, &network).await, FleetNode::start(OTHER, &network).await);
    (network, owner, other)
}

fn at(address: &str) -> Address {
    address.parse().unwrap()
}

fn user_of(open: &OpenConnection) -> Option<String> {
    open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, user)| user.to_string())
}

fn unplug(network: &MemoryNetwork, address: &str) {
    drop(network.listen(&at(address)));
}

#[tokio::test(crate = "paused")]
async fn the_owner_takes_the_word_of_the_node_that_has_seen_the_user() {
    let (network, mut owner, other) = owner_and_other().await;
    let (_, token) = negotiate(&owner.fixture, "/chat", &format!("&access_token={}", token_of("ann"))).await;
    let bare = format!("/chat?room=7&id={token}");
    let good = format!("{bare}&access_token={}", token_of("ann"));
    for method in ["GET", "POST", "DELETE"] {
        for target in [bare.clone(), format!("{bare}&access_token={}", token_of("bob"))] {
            assert_eq!(other.status(method, &target).await, 401, "{method} {target}");
        }
    }
    for method in ["PUT", "HEAD"] {
        assert_eq!(other.status(method, &good).await, 405);
    }
    let foreign = request_with("POST", &good, &[("origin", "https://evil.example")]);
    assert_eq!(HttpConnection::open(&other.fixture).await.exchange(foreign).await.0, StatusCode::FORBIDDEN);
    assert_eq!((network.dials(&at(OWNER)), other.hops()), (0, 0), "refused before anybody is dialled");

    let first = request_with("GET", &good, &[("cookie", "a=1")]);
    assert_eq!(HttpConnection::open(&other.fixture).await.exchange(first).await.0, StatusCode::OK);
    assert_eq!(exchange(&other.fixture, "POST", &good, JSON_HANDSHAKE).await.0, StatusCode::OK);
    let open = owner.links[0].opening().await;
    assert_eq!((user_of(&open).as_deref(), open.query.as_deref()), (Some("ann"), Some("?room=7")));
    assert!(open.headers.iter().any(|(name, _)| name == "cookie"), "the hub sees the client: {:?}", open.headers);
    assert_eq!(other.status("DELETE", &good).await, 202);
    assert_eq!(other.hops(), 3);
}

#[tokio::test(crate = "paused")]
async fn a_dead_owner_is_dialled_once_a_second_whatever_clients_ask_for() {
    let (network, owner, other) = owner_and_other().await;
    let targets = owner.targets(100).await;
    unplug(&network, OWNER);
    let begun = Instant::now();
    for _ in 0..3 {
        let statuses = join_all(targets.iter().map(|target| other.status("GET", target))).await;
        assert!(statuses.iter().all(|status| *status == 404), "{statuses:?}");
        let seconds = begun.elapsed().as_secs();
        assert!(seconds <= 6, "a request waits for one dial");
        let dials = network.dials(&at(OWNER)) as u64;
        assert!(dials <= seconds + 1, "{dials} dials in {seconds} s for hundreds of requests");
    }
    let failures = &other.fixture.shared.counters_of(0).relay.hop_failures;
    assert_eq!(failures.of(RelayFailure::Unreachable).get(), 300);
}

#[tokio::test(crate = "paused")]
async fn an_owner_that_another_node_has_replaced_is_asked_once() {
    let (network, owner, other) = owner_and_other().await;
    let targets = owner.targets(100).await;
    let successor = FleetNode::start(OWNER, &network).await;
    for target in &targets {
        assert_eq!(other.status("GET", target).await, 404);
        assert_eq!(successor.status("GET", target).await, 404, "at that address it is the owner no more");
    }
    assert_eq!((other.hops(), other.hops_refused(HopRefusal::OwnerGone)), (1, 99));
    assert_eq!((successor.hops(), network.dials(&at(OWNER))), (0, 1));
    // Requests for the successor's own connections are still forwarded.
    let (_, token) = negotiate(&successor.fixture, "/chat", "").await;
    assert_eq!(other.status("GET", &format!("/chat?id={token}")).await, 200);
}

#[tokio::test(crate = "paused")]
async fn another_server_at_an_owners_address_gets_no_secrets_and_passes_nothing_to_the_client() {
    let (network, owner, other) = owner_and_other().await;
    let access = token_of("ann");
    let (_, token) = negotiate(&owner.fixture, "/chat", &format!("&access_token={access}")).await;
    let heard = Arc::new(Mutex::new(String::new()));
    let mut accepted = network.listen(&at(OWNER));
    let (told, page) = (heard.clone(), "<script>alert(1)</script>");
    spawn_local(async move {
        while let Some(mut stream) = accepted.recv().await {
            let mut bytes = vec![0; 16 * 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            told.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: a=evil\r\nContent-Length: 25";
            drop(stream.write_all(format!("{answer}\r\n\r\n{page}").as_bytes()).await);
        }
    });
    let target = format!("/chat?id={token}&x=1&access_token={access}");
    let bearer = format!("Bearer {access}");
    let secrets = [("cookie", "session=ann"), ("x-own", "1"), ("authorization", &bearer)];
    let send = request_with("POST", &target, &secrets);
    let answer = HttpConnection::open(&other.fixture).await.begin(send).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(!answer.headers().contains_key("set-cookie"));
    let heard = heard.lock().unwrap().clone();
    assert!(heard.starts_with("GET /.trunkline/channel HTTP/1.1\r\n"), "{heard}");
    for secret in [token.as_str(), access.as_str(), "session=ann", "x-own", "authorization", "access_token", "/chat"] {
        assert!(!heard.contains(secret), "{secret}: {heard}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_token_that_is_older_than_any_carried_connection_leads_nowhere() {
    let (_, owner, other) = owner_and_other().await;
    let keys = &owner.fixture.shared.settings.keys;
    let (_, token) = negotiate(&owner.fixture, "/chat", "").await;
    let mut old = ConnectionToken::open(&token, keys).unwrap();
    let days = 24 * 3600;
    for (age, status, hops) in [(29 * days, 404, 1), (31 * days, 404, 1)] {
        old.connect_before -= age;
        let target = format!("/chat?id={}", old.seal(keys));
        assert_eq!(other.status("GET", &target).await, status);
        assert_eq!(other.hops(), hops, "{age}");
        old.connect_before += age;
    }
    assert_eq!(other.hops_refused(HopRefusal::TooOld), 1);
}

#[tokio::test(crate = "paused")]
async fn a_token_of_a_user_that_the_app_has_named_opens_one_connection_in_the_fleet() {
    let (network, owner, mut other) = owner_and_other().await;
    let third = FleetNode::start(THIRD, &network).await;
    owner.decide(Some("bob"));
    // The token alone does not identify the user to the app.
    other.decide(None);
    third.decide(None);
    let (_, body) = exchange(&owner.fixture, "POST", "/asked/negotiate", "").await;
    let version_0 = serde_json::from_str::<Value>(&body).unwrap()["connectionId"].as_str().unwrap().to_owned();
    let (_, version_1) = negotiate(&owner.fixture, "/asked", "").await;
    for (round, token) in (1..).zip([version_0, version_1]) {
        let target = format!("/asked?id={token}");
        let client = Client::connect(&other.fixture, &mut other.links[1], &target).await;
        let mut opened = 1;
        for _ in 0..2 {
            for node in [&owner, &third, &other] {
                opened += usize::from(Client::upgrade(&node.fixture, &target).await.is_ok());
            }
        }
        assert_eq!(opened, 1, "by one token at three nodes");
        assert_eq!(owner.status("GET", &target).await, 404, "nor does a poll begin another one");
        assert_eq!(other.reservations(ReservationOutcome::Granted), round);
        client.close().await;
        other.links[1].close().await;
        assert_eq!(Client::upgrade(&third.fixture, &target).await.err(), Some(404));
    }
}

#[tokio::test(crate = "paused")]
async fn where_the_owner_can_not_be_asked_the_app_names_the_same_user_again() {
    let (network, owner, other) = owner_and_other().await;
    owner.decide(Some("bob"));
    let (_, token) = negotiate(&owner.fixture, "/asked", "").await;
    let target = format!("/asked?id={token}");
    unplug(&network, OWNER);
    for decided in [None, Some("eve")] {
        other.decide(decided);
        assert_eq!(Client::upgrade(&other.fixture, &target).await.err(), Some(404), "{decided:?}");
    }
    other.decide(Some("bob"));
    assert!(Client::upgrade(&other.fixture, &target).await.is_ok());
    assert_eq!(other.reservations(ReservationOutcome::Unanswered), 3);
    assert_eq!(network.dials(&at(OWNER)), 1);
}

#[tokio::test(crate = "paused")]
async fn tokens_without_a_user_and_users_who_show_themselves_need_no_owner() {
    let (network, owner, other) = owner_and_other().await;
    let ann = format!("&access_token={}", token_of("ann"));
    for query in ["", ann.as_str()] {
        let (_, token) = negotiate(&owner.fixture, "/chat", query).await;
        assert!(Client::upgrade(&other.fixture, &format!("/chat?id={token}{query}")).await.is_ok());
    }
    assert_eq!(network.dials(&at(OWNER)), 0);
}

#[tokio::test(crate = "paused")]
async fn only_a_node_may_request_an_id() {
    let network = MemoryNetwork::default();
    let owner = FleetNode::start(OWNER, &network).await;
    owner.decide(Some("bob"));
    let (_, token) = negotiate(&owner.fixture, "/asked", "").await;
    let (status, _) = exchange(&owner.fixture, "POST", &format!("/.trunkline/reserve?id={token}"), "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(Client::upgrade(&owner.fixture, &format!("/asked?id={token}")).await.is_ok(), "it is still there");
}

#[tokio::test(crate = "paused")]
async fn the_failures_of_a_start_are_none_of_the_next_one_at_its_address() {
    let (network, owner, other) = owner_and_other().await;
    let (_, old) = negotiate(&owner.fixture, "/chat", "").await;
    unplug(&network, OWNER);
    assert_eq!(other.status("GET", &format!("/chat?id={old}")).await, 404);
    let begun = Instant::now();
    let successor = FleetNode::start(OWNER, &network).await;
    let (_, token) = negotiate(&successor.fixture, "/chat", "").await;
    assert_eq!(other.status("GET", &format!("/chat?id={token}")).await, 200);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn an_owner_is_reached_when_its_name_no_longer_resolves() {
    let (network, is_gone) = (MemoryNetwork::default(), Arc::new(AtomicBool::new(false)));
    let asked = is_gone.clone();
    let resolver = Resolver::asking(move |_| match asked.load(Ordering::Relaxed) {
        true => Err(std::io::ErrorKind::NotFound.into()),
        false => Ok(vec![([10, 0, 0, 1], 8080).into()]),
    });
    let mut owner = FleetNode::named("http://owner.invalid:8080", (OWNER, resolver.clone()), &network).await;
    let other = FleetNode::named("http://other.invalid:8080", (OTHER, resolver.clone()), &network).await;
    let third = FleetNode::named("http://third.invalid:8080", (THIRD, resolver.clone()), &network).await;
    let mut client = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.links[0]).await;
    is_gone.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(10)).await; // sleep: advances virtual time until idle connections are closed
    assert_eq!(exchange(&other.fixture, "POST", &client.target, CALL).await.0, StatusCode::OK);
    assert_eq!(owner.links[0].data().await.0, CALL);
    owner.links[0].write(&client.id, ANSWER).await;
    assert_eq!(client.event().await, ANSWER);
    assert_eq!(third.status("POST", &client.target).await, 404, "who has never reached it, and has no links, can't");
}

#[tokio::test(crate = "paused")]
async fn what_a_node_carries_when_it_stops_is_ended_by_its_owner_without_a_loss() {
    let (_, mut owner, other) = owner_and_other().await;
    let events = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.links[0]).await;
    let mut quiet = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.links[0]).await;
    let (poller, target) = poller_by(&owner.fixture, &other.fixture, &mut owner.links[0]).await;
    assert_eq!(exchange(&other.fixture, "POST", &events.target, CALL).await.0, StatusCode::OK);
    owner.links[0].data().await;

    let (begun, shared, admission) = (Instant::now(), other.fixture.shared.clone(), other.fixture.admission.clone());
    shared.begin_drain();
    let releasing = spawn_local(async move { release_carried(&shared, &admission, Duration::from_secs(10)).await });
    assert_eq!(exchange(&other.fixture, "GET", &target, "").await, (StatusCode::OK, String::new()));
    assert!(begun.elapsed() <= Duration::from_secs(1), "a poll ends soon: {:?}", begun.elapsed());
    owner.links[0].send(broadcast("\"news\"")).await;
    assert_eq!(exchange(&owner.fixture, "GET", &target, "").await, (StatusCode::OK, "\"news\"\u{1e}".into()));

    assert_eq!(quiet.event().await, "\"news\"\u{1e}");
    assert_eq!(owner.links[0].close().await.connection_id, quiet.id);
    assert_eq!(quiet.rest().await, LEAVE);
    sleep(Duration::from_secs(2)).await; // sleep: advances virtual time until the drain reaches the client
    owner.links[0].write(&events.id, ANSWER).await;
    assert_eq!(owner.links[0].close().await.connection_id, events.id);
    assert_eq!(events.rest().await, format!("\"news\"\u{1e}{ANSWER}{LEAVE}"));
    let shared = &other.fixture.shared;
    assert_eq!((shared.sockets(), shared.carried_gets.count()), (0, 0), "nothing holds the node");

    // Over an existing HTTP connection, a client may still open a stream at the draining node.
    let late = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.links[0]).await;
    assert_eq!(owner.links[0].close().await.connection_id, late.id);
    assert_eq!(late.rest().await, LEAVE);
    releasing.abort();
    owner.links[0].write(&poller, ANSWER).await;
    assert_eq!(exchange(&owner.fixture, "GET", &target, "").await, (StatusCode::OK, ANSWER.into()), "it goes on");
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_that_breaks_off_at_another_node_ends_its_connection() {
    let (_, mut owner, other) = owner_and_other().await;
    let events = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.links[0]).await;
    let id = events.id.clone();
    drop(events);
    assert_eq!(owner.links[0].close().await.connection_id, id);
}

#[tokio::test(crate = "paused")]
async fn all_claims_of_a_token_reach_the_owner_or_the_refusal_names_their_size() {
    let (_, mut owner, other) = owner_and_other().await;
    let ann = token_of_roles("ann", 400);
    for hub in ["/chat", "/asked"] {
        *owner.app.dialler.decision.lock().unwrap() = Some(Decision::default());
        let (_, token) = negotiate(&owner.fixture, hub, &format!("&access_token={ann}")).await;
        let target = format!("{hub}?id={token}&access_token={ann}");
        assert_eq!(other.status("GET", &target).await, 200, "{hub}");
        assert_eq!(exchange(&other.fixture, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
        let link = usize::from(hub == "/asked");
        let open = owner.links[link].opening().await;
        owner.links[link].data().await;
        assert_eq!(open.claims.iter().filter(|(name, _)| name == "role").count(), 400, "{hub}");
    }
    let long = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";
    let claims: Vec<_> = (0..300).map(|number| (long.to_owned(), number.to_string())).collect();
    let ann = access_token::sign(&AccessKey::new(KEY).unwrap(), "ann", &claims, unix_seconds() + 60);
    let (_, token) = negotiate(&owner.fixture, "/chat", &format!("&access_token={ann}")).await;
    let target = format!("/chat?id={token}&access_token={ann}");
    let (status, body) = exchange(&other.fixture, "GET", &target, "").await;
    assert!(status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && body.contains("10240"), "{body}");
    assert_eq!(owner.status("GET", &target).await, 200, "at its own node there is room");
}

async fn event_stream(fixture: &Fixture, target: &str) -> StatusCode {
    let get = request_with("GET", target, &[("accept", "text/event-stream")]);
    HttpConnection::open(fixture).await.begin(get).await.status()
}

#[tokio::test(crate = "paused")]
async fn gets_of_a_node_that_is_lost_without_a_word_end_within_five_seconds_and_those_of_a_frozen_one_wait() {
    super::fleet_nodes::by_network();
    let network = MemoryNetwork::default();
    let mut nodes = Vec::new();
    for (number, peer) in [(1, 2), (2, 1)] {
        nodes.push(LinkedNode::start(&network, number, peers(&[peer])).await);
    }
    linked(&nodes).await;
    let [owner, other] = nodes.as_mut_slice() else { unreachable!() };
    spawn_local(end_gets_of_lost_owners(other.fixture.shared.clone()));
    let (_, polled) = poller_by(&owner.fixture, &other.fixture, &mut owner.link).await;
    let stream = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.link).await;
    // The node links end, but the operating system still accepts connections.
    owner.cut(true);
    let mut polling = Box::pin(exchange(&other.fixture, "GET", &polled, ""));
    assert!(timeout(Duration::from_secs(20), &mut polling).await.is_err(), "it may only be frozen");
    network.set_cut(&at(OWNER), true);
    let begun = Instant::now();
    let ((status, _), rest) = tokio::join!(polling, stream.rest());
    assert_eq!((status, rest.as_str()), (StatusCode::NOT_FOUND, ""));
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn an_owner_that_lives_is_waited_for_and_its_client_may_else_try_again() {
    super::fleet_nodes::by_network();
    let network = MemoryNetwork::default();
    let mut nodes = Vec::new();
    for (number, peer) in [(1, 2), (2, 1)] {
        let relay = RelaySettings { hop_timeout: Duration::from_secs(5), ..RelaySettings::embedded() };
        nodes.push(LinkedNode::start(&network, number, Settings { relay, ..peers(&[peer]) }).await);
    }
    linked(&nodes).await;
    let [owner, other] = nodes.as_mut_slice() else { unreachable!() };
    let reachability = other.fixture.shared.other_nodes().reachability(&owner.fixture.shared.boot);
    assert_eq!(reachability, Reachability::Alive);
    let client = EventClient::connect_by(&owner.fixture, &other.fixture, &mut owner.link).await;
    let away = async || {
        sleep(Duration::from_secs(10)).await; // sleep: advances virtual time until idle connections are closed
        network.set_cut(&at(OWNER), true);
    };
    away().await;
    let back = async {
        sleep(Duration::from_secs(3)).await; // sleep: the test advances virtual time
        network.set_cut(&at(OWNER), false);
    };
    let ((status, _), ()) = tokio::join!(exchange(&other.fixture, "POST", &client.target, CALL), back);
    assert_eq!((status, owner.link.data().await.0.as_str()), (StatusCode::OK, CALL));
    away().await;
    let begun = Instant::now();
    let answer = HttpConnection::open(&other.fixture).await.begin(request("POST", &client.target, CALL)).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "2");
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(event_stream(&other.fixture, &client.target).await, StatusCode::NOT_FOUND, "a 503 would be repeated");
}
