//! Webhooks: events about clients sent to a back end, and the effects of its responses.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::access_token;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::service::{GroupBroadcastData, ServiceMessage};

use super::app::json;
use super::client::{Client, JSON_HANDSHAKE, Received};
use super::fixture::{Fixture, KEY, paused, settings, token_of};
use super::fleet_nodes;
use super::http::exchange;
use super::hub_message::call;
use super::webhook_server::{Asked, WebhookServer};
use crate::engine::upstream::DIAL_IN_HUBS_MAX;
use crate::fleet::{FleetEntry, InvocationOutcome};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{Settings, WebhookConnecting, WebhookSettings};
use crate::ground::metrics::WebhookOutcome;
use crate::ground::net::connector::MemoryNetwork;
use crate::node::hub_sweep;

pub(super) const APP: &str = "http://app.example:5000";
const CONNECTED: &str = "/chat/connections/connected";
const DISCONNECTED: &str = "/chat/connections/disconnected";
const SAY: &str = "/chat/messages/Say";

pub(super) fn webhooks(rules: &[&str]) -> WebhookSettings {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    WebhookSettings { rules, ..WebhookSettings::DEFAULT }
}

pub(super) fn plain() -> WebhookSettings {
    webhooks(&["chat=http://app.example:5000/{hub}/{category}/{event}"])
}

pub(super) fn fixture(network: &MemoryNetwork, webhooks: WebhookSettings) -> Fixture {
    Fixture::at(
        "http://node.example",
        network,
        Settings { webhooks, accepts_dial_in: true, has_upstreams: false, ..settings() },
    )
}

/// Starts a node with a webhook for the hub `chat`, and its back end.
fn start() -> (Fixture, WebhookServer) {
    start_with(plain())
}

fn start_with(webhooks: WebhookSettings) -> (Fixture, WebhookServer) {
    let network = MemoryNetwork::default();
    (fixture(&network, webhooks), WebhookServer::listen(&network, APP))
}

pub(super) async fn connect(fixture: &Fixture, target: &str) -> Client {
    let mut client = Client::upgrade(fixture, target).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    client
}

/// Connects a client, and the server is notified of it.
async fn connected(fixture: &Fixture, server: &mut WebhookServer, target: &str) -> Client {
    let client = connect(fixture, target).await;
    server.next().await.answer(200, "");
    client
}

pub(super) fn cast(target: &str, argument: &str) -> String {
    format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[\"{argument}\"]}}\u{1e}")
}

fn void(id: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\"}}")
}

fn error(id: &str, text: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\",\"error\":\"{text}\"}}")
}

fn count(fixture: &Fixture, hub: &str, outcome: WebhookOutcome) -> u64 {
    let all = fixture.webhooks.counters();
    all.iter().filter(|(name, _)| **name == *hub).map(|(_, counters)| counters.requests.of(outcome).get()).sum()
}

async fn until(is_so: impl Fn() -> bool) {
    fleet_nodes::until(Duration::from_secs(60), "a state of the webhooks", is_so).await;
}

#[tokio::test(crate = "paused")]
async fn a_hub_with_secrets_of_its_own_signs_with_them_and_not_with_the_access_key() {
    let secrets = ["chat=the first secret of a hub", "other=a secret of other hubs", "ch*=the second secret of a hub"];
    let secrets = secrets.map(|text| text.parse().unwrap()).into();
    let (secret, mut server) = start_with(WebhookSettings { secrets, ..plain() });
    let client = connect(&secret, "/chat").await;
    let connected = server.next().await;
    // The header includes the time, but no signatures with the access key or the secrets of other hubs.
    let count = |name: &str| connected.header(name).split(',').count();
    assert_eq!([count("x-asrs-signature"), count("x-trunkline-signature")], [2, 3]);
    connected.answer(200, "");
    client.close().await;
}

#[tokio::test(crate = "paused")]
async fn the_claims_of_a_user_are_one_header_however_many_they_are() {
    let (fixture, mut server) = start();
    let claims: Vec<_> = (0..300).map(|number| ("role".to_owned(), format!("r{number}"))).collect();
    let token = access_token::sign(&AccessKey::new(KEY).unwrap(), "ann", &claims, unix_seconds() + 60);
    let client = connect(&fixture, &format!("/Chat?access_token={token}")).await;
    let connected = server.next().await;
    assert!(connected.head.headers.len() < 20, "{:?}", connected.head.headers);
    let line = connected.header("x-asrs-user-claims").to_owned();
    let roles: Vec<_> = line.split(", ").filter_map(|claim| claim.strip_prefix("role: ")).collect();
    let expected: Vec<_> = claims.iter().map(|(_, role)| role).collect();
    assert_eq!(roles, expected);
    connected.answer(200, "");
    client.close().await;
}

#[tokio::test(crate = "paused")]
async fn a_server_is_told_of_a_client_from_its_beginning_to_its_end() {
    let (fixture, mut server) = start();
    let token = token_of("ann");
    let mut client = connect(&fixture, &format!("/Chat?color=r%20d&access_token={token}")).await;
    let connected = server.next().await;
    assert_eq!((connected.path(), connected.text()), (CONNECTED.into(), "{\"type\":10}"));
    let id = connected.header("x-asrs-connection-id").to_owned();
    assert_eq!(connected.header("host"), "app.example:5000");
    assert_eq!(connected.header("content-type"), "application/json");
    assert_eq!([connected.header("x-asrs-hub"), connected.header("x-asrs-category")], ["chat", "connections"]);
    assert_eq!([connected.header("x-asrs-event"), connected.header("x-asrs-user-id")], ["connected", "ann"]);
    assert_eq!(connected.header("x-asrs-client-query"), "?color=r%20d");
    let signature = connected.header("x-asrs-signature").to_owned();
    assert!(signature.starts_with("sha256=") && signature.len() == 71, "{signature}");
    let signed = connected.header("x-trunkline-signature").to_owned();
    assert!(signed.starts_with("t=") && !signed.contains(&signature), "{signed}");
    let claims: Vec<_> = connected.head.headers.get_all("x-asrs-user-claims").iter().collect();
    assert!(claims.iter().all(|claim| !claim.to_str().unwrap().starts_with("asrs.")), "{claims:?}");
    connected.answer(200, "");

    client.send(&call("7", "Say")).await;
    let said = server.next().await;
    assert_eq!(said.path(), SAY);
    assert_eq!(said.text(), "{\"type\":1,\"invocationId\":\"7\",\"target\":\"Say\",\"arguments\":[]}");
    assert_eq!([said.header("x-asrs-connection-id"), said.header("x-asrs-signature")], [&*id, &*signature]);
    assert_eq!([said.header("x-asrs-category"), said.header("x-asrs-event")], ["messages", "Say"]);
    assert_ne!(said.header("x-trunkline-signature"), signed, "another body and another event");
    said.answer(200, "{\"type\":3,\"invocationId\":\"7\",\"result\":[1]}\u{1e}");
    assert_eq!(client.text().await, "{\"type\":3,\"invocationId\":\"7\",\"result\":[1]}");

    client.close().await;
    let gone = server.next().await;
    assert_eq!((gone.path(), gone.text()), (DISCONNECTED.into(), "{\"type\":11}"));
    assert_eq!([gone.header("x-asrs-connection-id"), gone.header("x-trunkline-event-number")], [&*id, "2"]);
    assert_eq!(fixture.webhooks.clients(), 1, "nobody has heard of its end yet");
    gone.answer(204, "");
    until(|| fixture.webhooks.clients() == 0).await;
    assert_eq!((fixture.webhooks.waiting_bytes(), fixture.webhooks.in_flight()), (0, 0));
}

#[tokio::test(crate = "paused")]
async fn a_client_of_message_pack_is_served_in_its_protocol() {
    let (fixture, mut server) = start();
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.send("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}").await;
    server.next().await.answer(200, "");
    let body = b"\x95\x01\x80\xa17\xa3Say\x91\xa2hi";
    let framed: Vec<u8> = [&[13][..], body].concat();
    client.write(Message::binary(framed)).await;
    let said = server.next().await;
    assert_eq!([said.header("content-type"), &said.path()], ["application/x-msgpack", SAY]);
    assert!(said.body[1..].starts_with(&body[1..]), "{:?}", said.body);
    let completion = Bytes::from_static(b"\x09\x95\x03\x80\xa17\x03\xa2ok");
    said.answer(200, completion.clone());
    assert_eq!(client.next().await, Received::Binary(Bytes::from_static(b"{}\x1e")));
    assert_eq!(client.next().await, Received::Binary(completion));
}

#[tokio::test(crate = "paused")]
async fn events_of_a_connection_come_one_after_the_other_and_those_of_others_beside_them() {
    let (fixture, mut server) = start();
    let mut one = connect(&fixture, "/chat").await;
    for number in 0..20 {
        one.send(&cast("Say", &number.to_string())).await;
    }
    let first = server.next().await;
    assert_eq!(first.path(), CONNECTED);
    let mut other = connected(&fixture, &mut server, "/chat").await;
    other.send(&call("1", "Say")).await;
    server.next().await.answer(200, "");
    assert_eq!(other.text().await, void("1"), "another client does not wait for it");
    assert_eq!(server.waiting(), 0, "nothing comes before the first event is answered");
    first.answer(404, "");
    for number in 0..20 {
        let said = server.next().await;
        let expected = format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[\"{number}\"]}}");
        assert_eq!((said.text(), server.waiting()), (&*expected, 0));
        said.answer(200, "");
    }
}

#[tokio::test(crate = "paused")]
async fn each_failure_of_a_server_is_an_error_for_its_call_alone() {
    let (fixture, mut server) = start_with(WebhookSettings { answer_max_bytes: 1024, ..plain() });
    let mut client = connected(&fixture, &mut server, "/chat").await;
    let garbage = "Invocation failed: the server's answer is not a completion of this invocation in the protocol \
                       of its client.";
    let large = "x".repeat(1025);
    for (status, body, text, outcome) in [
        (500, "", "Invocation failed, status code 500.", WebhookOutcome::Status),
        (404, "", "Invocation failed, status code 404.", WebhookOutcome::Status),
        (307, "", "Invocation failed, status code 307: redirects are not followed.", WebhookOutcome::Redirect),
        (200, "<html>", garbage, WebhookOutcome::Malformed),
        (200, &large, "Invocation failed: the server's answer is larger than 1024 bytes.", WebhookOutcome::TooLarge),
    ] {
        let before = count(&fixture, "chat", outcome);
        client.send(&call("1", "Say")).await;
        server.next().await.answer(status, body.to_owned());
        assert_eq!(client.text().await, error("1", text));
        assert_eq!(count(&fixture, "chat", outcome), before + 1, "{outcome:?}");
    }
    client.send(&call("2", "Say")).await;
    server.next().await.answer(204, "");
    assert_eq!(client.text().await, void("2"));
}

/// Editors and PHP files write the mark, and a server may compress what it is not asked to send plainly.
#[tokio::test(crate = "paused")]
async fn an_answer_behind_a_byte_order_mark_is_read_and_an_encoded_one_is_not_asked_for() {
    let (fixture, mut server) = start();
    let mut client = connected(&fixture, &mut server, "/chat").await;
    client.send(&call("1", "Say")).await;
    let asked = server.next().await;
    assert_eq!(asked.header("accept-encoding"), "identity");
    asked.answer(200, format!("\u{feff}{}", void("1")));
    assert_eq!(client.text().await, void("1"));
}

#[tokio::test(crate = "paused")]
async fn a_hanging_back_end_fails_only_its_own_calls() {
    let network = MemoryNetwork::default();
    let rules = ["chat=http://app.example:5000/{hub}/{category}/{event}", "other=http://other.example/{event}"];
    let one = std::num::NonZeroUsize::MIN;
    let fixture = fixture(&network, WebhookSettings { in_flight_max: one, ..webhooks(&rules) });
    let mut hanging = WebhookServer::listen(&network, APP);
    let mut server = WebhookServer::listen(&network, "http://other.example");
    let mut client = connect(&fixture, "/chat").await;
    hanging.next().await.answer(200, "");
    let begun = Instant::now();
    client.send(&call("1", "Say")).await;
    let held = hanging.next().await;
    let mut other = connected(&fixture, &mut server, "/other").await;
    other.send(&call("1", "Say")).await;
    server.next().await.answer(200, "");
    assert_eq!(other.text().await, void("1"));
    assert_eq!((begun.elapsed(), fixture.webhooks.in_flight()), (Duration::ZERO, 1));
    assert_eq!(client.text().await, error("1", "Invocation failed: the server has not answered within 30 s."));
    assert_eq!((begun.elapsed().as_secs(), count(&fixture, "chat", WebhookOutcome::Timeout)), (30, 1));
    drop(held);
    client.send(&call("2", "Say")).await;
    hanging.next().await.answer(200, "");
    assert_eq!(client.text().await, void("2"), "a call that was sent is not sent again");
}

#[tokio::test(crate = "paused")]
async fn hubs_of_a_pattern_with_a_server_that_hangs_leave_requests_for_other_rules() {
    let network = MemoryNetwork::default();
    let rules = ["room-*=http://app.example:5000/{event}", "other=http://other.example/{event}"];
    let total_in_flight_max = std::num::NonZeroUsize::new(4).unwrap();
    let fixture = fixture(&network, WebhookSettings { total_in_flight_max, ..webhooks(&rules) });
    let mut hanging = WebhookServer::listen(&network, APP);
    let mut server = WebhookServer::listen(&network, "http://other.example");
    let (mut clients, mut held) = (Vec::new(), Vec::new());
    for number in 1..=4 {
        let hub = format!("room-{number}");
        let target = format!("/client/?hub={hub}&access_token={}", dial_in_token(&hub));
        clients.push(connect(&fixture, &target).await);
        hanging.next().await.answer(200, "");
    }
    let begun = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&call("1", "Say")).await;
        if number < 2 {
            held.push(hanging.next().await);
        }
    }
    let mut other = connected(&fixture, &mut server, "/other").await;
    other.send(&call("1", "Say")).await;
    server.next().await.answer(200, "");
    assert_eq!((other.text().await, begun.elapsed()), (void("1"), Duration::ZERO));
}

#[tokio::test(crate = "paused")]
async fn a_call_is_retried_while_the_connection_is_refused_and_then_fails() {
    let network = MemoryNetwork::default();
    let fixture = fixture(&network, plain());
    let mut client = connect(&fixture, "/chat").await;
    client.send(&call("1", "Say")).await;
    assert_eq!(client.text().await, error("1", "Invocation failed: the server can't be reached."));
    assert_eq!(network.dials(&APP.parse().unwrap()), 6, "three attempts for each of two events");
    client.send(&call("2", "Say")).await;
    until(|| network.dials(&APP.parse().unwrap()) == 7).await;
    let mut server = WebhookServer::listen(&network, APP);
    server.next().await.answer(200, "");
    assert_eq!(client.text().await, void("2"));
    server.stop();
}

#[tokio::test(crate = "paused")]
async fn the_end_of_a_connection_is_told_again_after_a_failure_with_the_same_number() {
    let (fixture, mut server) = start();
    let client = connected(&fixture, &mut server, "/chat").await;
    client.close().await;
    let first = server.next().await;
    let number = first.header("x-trunkline-event-number").to_owned();
    first.answer(503, "");
    let second = server.next().await;
    assert_eq!((second.path(), second.header("x-trunkline-event-number")), (DISCONNECTED.into(), &*number));
    second.answer(200, "");
    until(|| fixture.webhooks.clients() == 0).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_floods_a_slow_server_is_read_no_further() {
    let (fixture, mut server) = start();
    let mut client = connect(&fixture, "/chat").await;
    let connected = server.next().await;
    let argument = "x".repeat(1000);
    let mut sent = 0;
    while timeout(Duration::from_secs(1), client.send(&cast("Say", &argument))).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "the client is read on and on");
    }
    let waiting = fixture.webhooks.waiting_bytes();
    assert!((64 * 1024..256 * 1024).contains(&waiting), "{waiting} bytes wait");
    connected.answer(200, "");
    for _ in 0..sent {
        server.next().await.answer(200, "");
    }
}

#[tokio::test(crate = "paused")]
async fn a_full_backlog_stops_reading_clients_and_drops_what_the_gone_leave() {
    let (fixture, mut server) = start_with(WebhookSettings { waiting_max_bytes: 5_000, ..plain() });
    let mut gone = connect(&fixture, "/chat").await;
    let connected = server.next().await;
    gone.send(&cast("Say", "dropped")).await;
    until(|| fixture.webhooks.waiting_bytes() > 500).await;
    let mut client = connect(&fixture, "/chat").await;
    let other_connected = server.next().await;
    client.send(&cast("Say", &"x".repeat(5_000))).await;
    until(|| fixture.webhooks.waiting_bytes() > 5_000).await;
    client.send(&cast("Say", "later")).await;
    gone.close().await;
    connected.answer(200, "");
    let next = server.next().await;
    assert_eq!(next.path(), DISCONNECTED, "its message was dropped");
    next.answer(200, "");
    until(|| fixture.webhooks.clients() == 1).await;
    assert!(fixture.webhooks.waiting_bytes() < 6_500, "the other one is read no further");
    other_connected.answer(200, "");
    server.next().await.answer(200, "");
    let said = server.next().await;
    assert!(said.text().contains("later"), "{}", said.text());
    said.answer(200, "");
    let dropped: u64 = fixture.webhooks.counters().iter().map(|(_, counters)| counters.dropped.get()).sum();
    assert_eq!(dropped, 1);
}

#[tokio::test(crate = "paused")]
async fn clients_that_come_and_go_while_a_server_hangs_leave_no_more_than_the_bound() {
    let (in_flight_max, answer_timeout) = (std::num::NonZeroUsize::MIN, Duration::from_secs(600));
    let bounds = WebhookSettings { in_flight_max, answer_timeout, waiting_max_bytes: 20_000, ..plain() };
    let (fixture, mut server) = start_with(bounds);
    let _stays = connect(&fixture, "/chat").await;
    let held = server.next().await;
    let target = format!("/chat?text={}", "x".repeat(1_000));
    for _ in 0..200 {
        drop(connect(&fixture, &target).await);
    }
    let webhooks = &fixture.webhooks;
    until(|| webhooks.clients() < 20).await;
    assert!((18_000..24_000).contains(&webhooks.waiting_bytes()), "{} bytes wait", webhooks.waiting_bytes());
    held.answer(200, "");
    let mut told = Vec::new();
    while webhooks.clients() > 1 {
        let Ok(asked) = timeout(Duration::from_secs(1), server.next()).await else { continue };
        told.push((asked.header("x-asrs-connection-id").to_owned(), asked.path()));
        asked.answer(200, "");
    }
    let mut ids: Vec<_> = told.iter().map(|(id, _)| id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 5 && told.len() == 2 * ids.len(), "{told:?}");
    for id in ids {
        let paths: Vec<_> = told.iter().filter(|(of, _)| *of == id).map(|(_, path)| &**path).collect();
        assert_eq!(paths, [CONNECTED, DISCONNECTED]);
    }
}

#[tokio::test(crate = "paused")]
async fn clients_that_disconnect_before_their_admission_leave_nothing_behind() {
    let (connecting, in_flight_max) = (WebhookConnecting::Asked, std::num::NonZeroUsize::MIN);
    let (fixture, mut server) = start_with(WebhookSettings { connecting, in_flight_max, ..plain() });
    for _ in 0..50 {
        let gone = timeout(Duration::from_millis(10), Client::upgrade(&fixture, "/chat")).await;
        assert!(gone.is_err(), "the back end has not answered");
    }
    until(|| fixture.webhooks.in_flight() == 0).await;
    assert_eq!((fixture.webhooks.clients(), fixture.webhooks.waiting_bytes()), (0, 0));
    assert!(server.waiting() <= 50);
}

#[tokio::test(crate = "paused")]
async fn the_number_of_requests_under_way_is_bounded() {
    let most = std::num::NonZeroUsize::new(3).unwrap();
    let (fixture, mut server) = start_with(WebhookSettings { in_flight_max: most, ..plain() });
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(connect(&fixture, "/chat").await);
    }
    until(|| fixture.webhooks.in_flight() == 3).await;
    for left in (0..10).rev() {
        until(|| fixture.webhooks.in_flight() == 3.min(left + 1)).await;
        let asked = server.next().await;
        assert!(server.waiting() < 3);
        asked.answer(200, "");
    }
    until(|| fixture.webhooks.in_flight() == 0).await;
}

#[tokio::test(crate = "paused")]
async fn a_name_that_would_escape_its_placeholder_in_the_url_is_not_sent() {
    let (fixture, mut server) = start();
    let mut client = connected(&fixture, &mut server, "/chat").await;
    for name in ["..", "../../admin", "a\\\\..\\\\b"] {
        client.send(&call("1", name)).await;
        let refused = client.text().await;
        assert!(refused.contains("\"error\":\"The name of the method is not supported: "), "{refused}");
    }
    client.send(&call("2", "a/b?c#d")).await;
    let asked = server.next().await;
    assert_eq!((asked.path(), asked.header("x-asrs-event")), ("/chat/messages/a%2Fb%3Fc%23d".into(), "a/b?c#d"));
    asked.answer(200, "");
    assert_eq!(client.text().await, void("2"));
}

#[tokio::test(crate = "paused")]
async fn uploads_are_refused_by_name_and_a_stream_ends_by_the_answer_or_is_the_servers() {
    let (fixture, mut server) = start();
    let mut client = connected(&fixture, &mut server, "/chat").await;
    let refused =
        error("1", "Streams of the client are not supported: the methods of this hub are served by a webhook.");
    let stream =
        |id: &str| format!("{{\"type\":4,\"invocationId\":\"{id}\",\"target\":\"Count\",\"arguments\":[]}}\u{1e}");
    for (status, told) in [(204, void("1")), (500, error("1", "Invocation failed, status code 500."))] {
        client.send(&stream("1")).await;
        let asked = server.next().await;
        assert_eq!(asked.path(), "/chat/messages/Count");
        assert_eq!(format!("{}\u{1e}", asked.text()), stream("1"));
        asked.answer(status, "");
        assert_eq!(client.text().await, told);
    }
    client.send(&stream("2")).await;
    server.next().await.answer(202, "");
    // No other message precedes the response to the next call.
    client
        .send("{\"type\":1,\"invocationId\":\"1\",\"target\":\"Up\",\"arguments\":[],\"streamIds\":[\"2\"]}\u{1e}")
        .await;
    assert_eq!(client.text().await, refused);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_violates_the_protocol_is_closed_and_the_back_end_gets_the_reason() {
    let (fixture, mut server) = start();
    let mut client = connected(&fixture, &mut server, "/chat").await;
    client.send("{\"type\":1}\u{1e}").await;
    assert_eq!(client.text().await, "{\"type\":7,\"error\":\"Connection closed with an error.\"}");
    let gone = server.next().await;
    assert_eq!(gone.path(), DISCONNECTED);
    assert!(gone.text().starts_with("{\"type\":11,\"error\":\""), "{}", gone.text());
    gone.answer(200, "");
    until(|| fixture.webhooks.clients() == 0).await;
}

#[tokio::test(crate = "paused")]
async fn a_call_that_can_not_be_decoded_fails_alone() {
    let (fixture, mut server) = start();
    let mut client = connected(&fixture, &mut server, "/chat").await;
    let deep = format!("\"Say\",\"arguments\":{}{}", "[".repeat(600), "]".repeat(600));
    for target in ["\"\",\"arguments\":[]", "\"Say\"", "\"Say\",\"arguments\":[x]", &deep] {
        client.send(&format!("{{\"type\":1,\"invocationId\":\"7\",\"target\":{target}}}\u{1e}")).await;
        let answer = client.text().await;
        assert!(answer.starts_with("{\"type\":3,\"invocationId\":\"7\",\"error\":\""), "{answer}");
    }
    client.send("{\"type\":3,\"invocationId\":\"7\",\"result\":1,\"error\":\"both\"}\u{1e}").await;
    client.send(&call("8", "Say")).await;
    server.next().await.answer(200, "");
    assert_eq!(client.text().await, void("8"));
}

const CONNECT: &str = "/chat/connections/connect";

fn value(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// Starts a node whose back end decides about each client.
fn start_asked() -> (Fixture, WebhookServer) {
    let connect_items = ["address", "header:x-app", "cookie:sid"].map(|item| item.parse().unwrap()).into();
    let settings = WebhookSettings { connecting: WebhookConnecting::Asked, connect_items, ..plain() };
    start_with(settings)
}

#[tokio::test(crate = "paused")]
async fn a_server_that_is_asked_lets_clients_in_or_refuses_them() {
    let (fixture, mut server) = start_asked();
    let begin = async |server: &mut WebhookServer, status: u16, body: &'static str| {
        let decide = async {
            let asked: Asked = server.next().await;
            assert_eq!((asked.path(), asked.header("x-asrs-connection-id")), (CONNECT.into(), ""));
            asked.answer(status, body);
        };
        tokio::join!(Client::upgrade(&fixture, "/chat"), decide).0
    };
    let mut client = begin(&mut server, 204, "").await.unwrap();
    client.send(&format!("{JSON_HANDSHAKE}{}", call("1", "Say"))).await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    for path in [CONNECTED, SAY] {
        let asked = server.next().await;
        assert_eq!(asked.path(), path);
        asked.answer(200, "");
    }
    assert_eq!(client.text().await, void("1"));
    for (status, body, seen) in [(403, "", 403), (402, "pay", 402), (302, "", 503), (200, "yes", 503)] {
        assert_eq!(begin(&mut server, status, body).await.err(), Some(seen), "{status}");
    }
    assert_eq!(count(&fixture, "chat", WebhookOutcome::Malformed), 1);
    assert_eq!((server.waiting(), fixture.webhooks.clients()), (0, 1), "the end of the refused is nobody's");
}

#[tokio::test(crate = "paused")]
async fn a_refusal_is_the_answer_to_the_negotiation_with_its_status_and_text() {
    let (fixture, mut server) = start_asked();
    let decide = async {
        let asked = server.next().await;
        assert_eq!(asked.text(), "{\"type\":10,\"address\":\"192.0.2.1\"}");
        asked.answer(403, "{\"message\":\"banned\"}");
    };
    let refused = exchange(&fixture, "POST", "/chat/negotiate?negotiateVersion=1", "");
    let (answer, ()) = tokio::join!(refused, decide);
    assert_eq!((answer.0.as_u16(), &*answer.1), (403, "banned"));
}

#[tokio::test(crate = "paused")]
async fn a_server_is_not_asked_about_a_client_with_an_invalid_token() {
    let (fixture, mut server) = start_asked();
    for target in ["/chat/negotiate?negotiateVersion=1&access_token=rubbish", "/chat/negotiate?access_token=a.b.c"] {
        let (status, text) = exchange(&fixture, "POST", target, "").await;
        assert!(status == 401 && text.starts_with("the access token is not valid"), "{status} {text}");
    }
    assert_eq!(server.waiting(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_server_that_is_asked_names_user_groups_claims_and_data() {
    let (fixture, mut server) = start_asked();
    let token = token_of("ann");
    let decide = async {
        let asked = server.next().await;
        assert_eq!([asked.header("x-asrs-user-id"), asked.header("x-asrs-client-query")], ["ann", "?room=7"]);
        let body = value(asked.text());
        asked.answer(
            200,
            r#"{"userId":"Ann 7","groups":["red"],"claims":[{"type":"role","value":"cook"}],"data":"{\"a\": 1}"}"#,
        );
        body
    };
    let cookies = [("cookie", "a=1; sid=s")];
    let target = format!("/chat?room=7&access_token={token}");
    let upgraded = Client::upgrade_with(fixture.dial(), &target, &cookies);
    let (client, body) = tokio::join!(upgraded, decide);
    let items = r#"{"type":10,"address":"192.0.2.1","headers":{"x-app":["kept"]},"cookies":{"sid":"s"}}"#;
    assert_eq!(body, value(items));
    let mut client = client.unwrap();
    client.send(JSON_HANDSHAKE).await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    let connected = server.next().await;
    let header = |name: &str| connected.header(name).to_owned();
    assert_eq!([header("x-asrs-user-id"), header("x-asrs-user-claims")], ["Ann 7", "role: cook"]);
    assert_eq!(header("x-trunkline-client-data"), "{\"a\": 1}");
    connected.answer(200, "");
    let entry = FleetEntry::from_fleet(&fixture.fleet());
    let payloads = json("{\"type\":1,\"target\":\"Said\",\"arguments\":[]}");
    let to_group = GroupBroadcastData { group: "red".into(), payloads, ..GroupBroadcastData::default() };
    let sent = ServiceMessage::GroupBroadcastData(to_group);
    assert_eq!(entry.begin_delivery(&entry.hub_named("chat"), sent).await.await.clients, 1);
    assert!(client.text().await.contains("Said"));
}

#[tokio::test(crate = "paused")]
async fn a_server_that_is_asked_decides_about_clients_of_dial_in_whom_their_token_names() {
    let (fixture, mut server) = start_asked();
    let target = |more: &str| format!("/client/?hub=chat&access_token={}{more}", dial_in_token("chat"));
    let negotiate = target("&negotiateVersion=1").replace("/client/", "/client/negotiate");
    for (body, status) in [("{\"userId\":\"eve\"}", 403), ("{\"userId\":\"bob\",\"data\":\"x\"}", 200)] {
        let decide = async {
            let asked = server.next().await;
            assert_eq!((asked.path(), asked.header("x-asrs-user-id")), (CONNECT.into(), "bob"));
            asked.answer(200, body);
        };
        let (answer, ()) = tokio::join!(exchange(&fixture, "POST", &negotiate, ""), decide);
        assert_eq!(answer.0.as_u16(), status, "{}", answer.1);
        if status == 200 {
            let token = value(&answer.1)["connectionToken"].as_str().unwrap().to_owned();
            let mut client = Client::upgrade(&fixture, &target(&format!("&id={token}"))).await.unwrap();
            client.send(JSON_HANDSHAKE).await;
            let connected = server.next().await;
            assert_eq!([connected.header("x-asrs-user-id"), connected.header("x-trunkline-client-data")], ["bob", "x"]);
            connected.answer(200, "");
        }
    }
}

#[tokio::test(crate = "paused")]
async fn clients_come_to_the_same_hub_by_its_path_and_by_the_door() {
    let rules =
        ["chat=http://app.example:5000/{hub}/{category}/{event}", "room-*=http://app.example:5000/rooms?r={hub}"];
    let (fixture, mut server) = start_with(webhooks(&rules));
    let of_path = connected(&fixture, &mut server, "/chat").await;
    let token = |hub: &str| {
        let audience = ("aud".to_owned(), format!("http://any.example/client/?hub={hub}"));
        let claims = [audience, ("role".to_owned(), "cook".to_owned())];
        access_token::sign(&AccessKey::new(KEY).unwrap(), "bob", &claims, unix_seconds() + 60)
    };
    let by_dial_in = connect(&fixture, &format!("/client/?hub=chat&access_token={}", token("chat"))).await;
    let asked = server.next().await;
    assert_eq!((asked.path(), asked.header("x-asrs-user-id")), (CONNECTED.into(), "bob"));
    let claims: Vec<_> = asked.head.headers.get_all("x-asrs-user-claims").iter().collect();
    assert!(claims.iter().any(|claim| claim.to_str().unwrap().ends_with("role: cook")), "{claims:?}");
    assert_eq!(asked.header("x-asrs-client-query"), "?hub=chat");
    asked.answer(200, "");
    assert_eq!(fixture.shared.hubs.all().iter().filter(|hub| hub.name() == "chat").count(), 1);

    let in_room = connect(&fixture, &format!("/client/?hub=Room-1&access_token={}", token("room-1"))).await;
    let asked = server.next().await;
    assert_eq!((asked.path(), asked.header("x-asrs-hub")), ("/rooms?r=room-1".into(), "room-1"));
    asked.answer(200, "");
    assert_eq!(Client::upgrade(&fixture, "/room-1").await.err(), Some(404), "a pattern gives no path");
    drop((of_path, by_dial_in, in_room));
}

fn dial_in_token(hub: &str) -> String {
    let claims = [("aud".to_owned(), format!("http://any.example/client/?hub={hub}"))];
    access_token::sign(&AccessKey::new(KEY).unwrap(), "bob", &claims, unix_seconds() + 60)
}

async fn negotiate(fixture: &Fixture, hub: &str) -> u16 {
    let target = format!("/client/negotiate?hub={hub}&negotiateVersion=1&access_token={}", dial_in_token(hub));
    exchange(fixture, "POST", &target, "").await.0.as_u16()
}

#[tokio::test(crate = "paused")]
async fn hubs_of_a_pattern_are_removed_without_clients() {
    let network = MemoryNetwork::default();
    let rules = ["chat=http://app.example:5000/{hub}/{category}/{event}", "room-*=http://app.example:5000/{event}"];
    let answer_timeout = Duration::from_secs(600);
    let fixture = fixture(&network, WebhookSettings { answer_timeout, ..webhooks(&rules) });
    spawn_local(hub_sweep::run(fixture.shared.clone(), fixture.webhooks.clone()));
    let mut server = WebhookServer::listen(&network, APP);
    let hold = async || {
        let seconds = u64::from(fixture.shared.settings.rehoming.hold_timeout_s);
        // sleep: the test advances paused time
        sleep(Duration::from_secs(seconds + 2)).await;
    };
    let living = || fixture.shared.hubs.living().iter().map(|hub| hub.name().to_owned()).collect::<Vec<_>>();
    let client =
        connected(&fixture, &mut server, &format!("/client/?hub=room-1&access_token={}", dial_in_token("room-1")))
            .await;
    assert_eq!(negotiate(&fixture, "room-2").await, 200);
    assert_eq!((living().join(" "), fixture.webhooks.count()), ("chat room-1 room-2".into(), 3));
    hold().await;
    assert_eq!(living(), ["chat", "room-1"], "the operator names one, and a client the other");
    client.close().await;
    let gone = server.next().await;
    hold().await;
    assert_eq!(living(), ["chat", "room-1"], "the back end has not heard of the end of its client");
    gone.answer(200, "");
    hold().await;
    assert_eq!(living(), ["chat"]);
    let mut again =
        connected(&fixture, &mut server, &format!("/client/?hub=room-1&access_token={}", dial_in_token("room-1")))
            .await;
    again.send(&call("1", "Say")).await;
    server.next().await.answer(200, "");
    assert_eq!((again.text().await, fixture.webhooks.count()), (void("1"), 2));
}

#[tokio::test(crate = "paused")]
async fn a_hub_that_is_one_too_many_leaves_no_webhook_behind() {
    let fixture = fixture(&MemoryNetwork::default(), webhooks(&["*=http://app.example:5000/{event}"]));
    for number in 0..DIAL_IN_HUBS_MAX {
        assert_eq!(negotiate(&fixture, &format!("room-{number}")).await, 200);
    }
    assert_eq!((negotiate(&fixture, "room").await, fixture.webhooks.count()), (503, DIAL_IN_HUBS_MAX));
}

#[tokio::test(crate = "paused")]
async fn a_link_to_a_webhook_lives_while_nothing_happens() {
    let (fixture, mut server) = start();
    let mut client = connected(&fixture, &mut server, "/chat").await;
    for _ in 0..20 {
        // sleep: virtual time without any activity
        sleep(Duration::from_secs(14)).await;
        client.send("{\"type\":6}\u{1e}").await;
    }
    client.send(&call("1", "Say")).await;
    server.next_at(SAY).await.answer(200, "");
    assert_eq!(client.text().await, void("1"));
    let lost: u64 = fixture.shared.counters().iter().map(|counters| counters.sessions.interrupted.get()).sum();
    assert_eq!(lost, 0);
}

#[tokio::test(crate = "paused")]
async fn an_invoked_client_answers_the_caller_and_not_the_back_end() {
    let (fixture, mut server) = start();
    let mut client = connect(&fixture, "/chat").await;
    let connected = server.next().await;
    let id = connected.header("x-asrs-connection-id").to_owned();
    connected.answer(200, "");
    let entry = FleetEntry::from_fleet(&fixture.fleet());
    let invoke = async |connection: &str| {
        let question = |id: &str| json(call(id, "Ask").trim_end_matches('\u{1e}'));
        entry.invoke_client(&entry.hub_named("chat"), connection, question, Duration::from_secs(5)).await
    };
    let answer = async {
        let asked = client.text().await;
        let number = asked.split('"').nth(5).unwrap().to_owned();
        client.send(&format!("{{\"type\":3,\"invocationId\":\"{number}\",\"result\":5}}\u{1e}")).await;
        client.send(&call("1", "Say")).await;
        let next = server.next().await;
        assert_eq!(next.path(), SAY, "the result is no event");
        next.answer(200, "");
    };
    let (outcome, ()) = tokio::join!(invoke(&id), answer);
    let InvocationOutcome::Completed { completion, .. } = outcome else { panic!("{outcome:?}") };
    assert!(completion.ends_with(b",\"result\":5}\x1e"), "{completion:?}");
    assert_eq!(invoke("nobody").await, InvocationOutcome::NotFound { missing: Vec::new() });
}

#[tokio::test(crate = "paused")]
async fn a_path_that_an_app_server_names_too_is_the_webhooks() {
    let (fixture, mut server) = start();
    let _app = fixture.server("app-1").await;
    let client = connect(&fixture, "/chat").await;
    let connected = server.next().await;
    assert_eq!(connected.path(), CONNECTED);
    drop(client);
}
