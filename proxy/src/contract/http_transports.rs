//! Server-sent events and long polling.

use std::time::Duration;

use ::http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use trunkline_protocol::limits::{FIRST_GET_TIMEOUT_S, PENDING_PIPES_PER_ADDRESS_MAX};
use trunkline_protocol::manifest::{HubManifest, Transport};
use trunkline_protocol::service::ServiceMessage;

use super::app::{AppLink, broadcast};
use super::client::{Client, JSON_HANDSHAKE, PING};
use super::fixture::{Fixture, paused, settings};
use super::http::{HttpConnection, exchange, negotiate, request, request_with};
use super::hub_message::cast;
use super::scene::LinkedApp;

/// Manifest of the hub `chat` with a single transport.
fn chat_by(transport: Transport) -> HubManifest {
    HubManifest { transports: vec![transport], ..HubManifest::new("chat", "/chat") }
}

async fn chat(shards: u16) -> (Fixture, LinkedApp) {
    Fixture::with(settings(), shards).with_chat().await
}

/// Reads the next event of a stream, skipping keep-alives.
async fn event(body: &mut Incoming, read: &mut String) -> String {
    loop {
        if let Some(end) = read.find("\r\n\r\n") {
            let event: String = read.drain(..end + 4).collect();
            let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            let data = data.concat();
            if !data.is_empty() && !data.starts_with(PING) {
                return data;
            }
            continue;
        }
        let frame = body.frame().await.expect("the stream has ended").unwrap();
        read.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_carries_messages_down_and_posts_carry_them_up_from_any_shard() {
    let (fixture, mut link) = chat(2).await;
    let mut client = EventClient::connect(&fixture, &mut link).await;
    link.send(broadcast("\"news\"")).await;
    assert_eq!(client.event().await, "\"news\"\u{1e}");
    let call = &*cast("M");
    assert_eq!(exchange(&fixture, "POST", &client.target, call).await.0, StatusCode::OK);
    assert_eq!(link.data().await.0, call);
    let id = client.id.clone();
    drop(client);
    assert_eq!(link.close().await.connection_id, id);
}

/// Connects a long polling client, accepted by its app server. Returns its connection id and request target.
pub(super) async fn poller(fixture: &Fixture, link: &mut AppLink) -> (String, String) {
    poller_by(fixture, fixture, link).await
}

/// Connects a long polling client through another node.
pub(super) async fn poller_by(owner: &Fixture, by: &Fixture, link: &mut AppLink) -> (String, String) {
    let (id, token) = negotiate(owner, "/chat", "").await;
    let target = format!("/chat?id={token}");
    assert_eq!(poll(by, &target).await, (StatusCode::OK, String::new()), "the first poll opens");
    accept(by, link, &id, &target).await;
    assert_eq!(poll(by, &target).await, (StatusCode::OK, "{}\u{1e}".into()));
    (id, target)
}

/// Event stream client, accepted by its app server.
pub(super) struct EventClient {
    pub(super) id: String,
    pub(super) target: String,
    body: Incoming,
    read: String,
    /// Ends the stream when dropped.
    _connection: HttpConnection,
}

impl EventClient {
    pub(super) async fn connect(fixture: &Fixture, link: &mut AppLink) -> Self {
        Self::connect_by(fixture, fixture, link).await
    }

    /// Connects at the owner through another node.
    pub(super) async fn connect_by(owner: &Fixture, by: &Fixture, link: &mut AppLink) -> Self {
        let (id, token) = negotiate(owner, "/chat", "").await;
        let target = format!("/chat?id={token}");
        let mut connection = HttpConnection::open(by).await;
        let get = request_with("GET", &target, &[("accept", "text/event-stream")]);
        let answer = connection.begin(get).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let mut client = Self { id, target, body: answer.into_body(), read: String::new(), _connection: connection };
        accept(by, link, &client.id, &client.target).await;
        assert_eq!(client.event().await, "{}\u{1e}");
        client
    }

    /// Receives the next event, skipping keep-alives.
    pub(super) async fn event(&mut self) -> String {
        event(&mut self.body, &mut self.read).await
    }

    /// Reads to the end of the stream; returns the data without keep-alives.
    pub(super) async fn rest(mut self) -> String {
        let bytes = self.body.collect().await.unwrap().to_bytes();
        self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        let data = self.read.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| !data.starts_with(PING)).collect()
    }
}

/// Posts the hub handshake, which the app server answers.
async fn accept(fixture: &Fixture, link: &mut AppLink, id: &str, target: &str) {
    assert_eq!(exchange(fixture, "POST", target, JSON_HANDSHAKE).await.0, StatusCode::OK);
    assert_eq!(link.opening().await.connection_id, id);
    link.data().await;
    link.write(id, "{}\u{1e}").await;
}

/// Polls once; returns the status and all messages.
async fn poll(fixture: &Fixture, target: &str) -> (StatusCode, String) {
    exchange(fixture, "GET", target, "").await
}

#[tokio::test(crate = "paused")]
async fn polls_bring_whole_messages_and_a_delete_ends_the_connection() {
    let (fixture, mut link) = chat(2).await;
    let (id, target) = poller(&fixture, &mut link).await;
    link.send_together([broadcast("1"), broadcast("2")]).await;
    link.fence().await;
    assert_eq!(poll(&fixture, &target).await, (StatusCode::OK, "1\u{1e}2\u{1e}".into()));
    let call = &*cast("M");
    assert_eq!(exchange(&fixture, "POST", &target, call).await.0, StatusCode::OK);
    assert_eq!(link.data().await.0, call);
    assert_eq!(exchange(&fixture, "DELETE", &target, "").await.0, StatusCode::ACCEPTED);
    assert_eq!(link.close().await.connection_id, id);
    assert_eq!(poll(&fixture, &target).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(crate = "paused")]
async fn requests_that_a_load_balancer_decorated_as_upgrades_are_served() {
    let (fixture, _link) = chat(1).await;
    for accept in ["text/event-stream", "*/*"] {
        let (_, token) = negotiate(&fixture, "/chat", "").await;
        let headers = [("accept", accept), ("connection", "upgrade"), ("upgrade", "websocket")];
        let get = request_with("GET", &format!("/chat?id={token}"), &headers);
        assert_eq!(HttpConnection::open(&fixture).await.begin(get).await.status(), StatusCode::OK, "{accept}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_poll_that_brings_nothing_ends_after_its_time_out() {
    let (fixture, mut link) = chat(1).await;
    let (_, target) = poller(&fixture, &mut link).await;
    let begun = Instant::now();
    assert_eq!(poll(&fixture, &target).await, (StatusCode::OK, String::new()));
    assert_eq!(begun.elapsed().as_secs(), fixture.shared.settings.http_transports.poll_timeout.as_secs());
}

#[tokio::test(crate = "paused")]
async fn a_client_that_stops_polling_is_taken_out_after_the_disconnect_time_out() {
    let (fixture, mut link) = chat(2).await;
    let (id, target) = poller(&fixture, &mut link).await;
    let begun = Instant::now();
    assert_eq!(link.close().await.connection_id, id);
    let most = Duration::from_secs(u64::from(fixture.shared.settings.http_transports.disconnect_timeout_s) + 2);
    assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
    assert!(matches!(poll(&fixture, &target).await.0, StatusCode::NOT_FOUND | StatusCode::NO_CONTENT));
    assert!(fixture.shared.http_transports.is_empty());
}

#[tokio::test(crate = "paused")]
async fn a_hub_with_one_transport_refuses_the_others() {
    let (fixture, mut link) = Fixture::start().with_app(chat_by(Transport::WebSockets)).await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    let (status, body) = exchange(&fixture, "GET", &target, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert_eq!(body, "LongPolling transport not supported by this end point type");
    link.fence().await;
    let (_, body) = exchange(&fixture, "POST", "/chat/negotiate?negotiateVersion=1", "").await;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let offered = serde_json::json!([{ "transport": "WebSockets", "transferFormats": ["Text", "Binary"] }]);
    assert_eq!(answer["availableTransports"], offered);
}

#[tokio::test(crate = "paused")]
async fn posts_without_a_get_hold_few_pipes_and_none_for_long() {
    // The number of tokens for which one HTTP connection once allocated 64 KiB each within a second.
    const TOKENS: usize = 4_500;
    let (fixture, mut link) = chat(1).await;
    let mut connection = HttpConnection::open(&fixture).await;
    let (mut taken, mut full) = (Vec::new(), 0);
    for _ in 0..TOKENS {
        let (_, body) = connection.exchange(request("POST", "/chat/negotiate?negotiateVersion=1", "")).await;
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let target = format!("/chat?id={}", answer["connectionToken"].as_str().unwrap());
        match connection.exchange(request("POST", &target, &"x".repeat(60_000))).await.0 {
            StatusCode::OK => taken.push(target),
            StatusCode::SERVICE_UNAVAILABLE => full += 1,
            other => panic!("{other}"),
        }
    }
    let pipes = &fixture.shared.limits.pipes;
    assert_eq!((taken.len(), full), (PENDING_PIPES_PER_ADDRESS_MAX, TOKENS - taken.len()));
    assert_eq!(pipes.len(), PENDING_PIPES_PER_ADDRESS_MAX);
    // A connection with a GET is no longer pending and frees its permit.
    let begun = taken.pop().unwrap();
    assert_eq!(poll(&fixture, &begun).await.0, StatusCode::OK);
    assert_eq!(pipes.len(), PENDING_PIPES_PER_ADDRESS_MAX - 1);
    // sleep: the test advances paused time
    sleep(Duration::from_secs(u64::from(FIRST_GET_TIMEOUT_S) + 2)).await;
    assert_eq!(pipes.len(), 0);
    assert_eq!(poll(&fixture, &taken[0]).await.0, StatusCode::NOT_FOUND);
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_post_before_the_first_get_counts_as_a_connection_of_its_address_and_node() {
    let (fixture, _link) = Fixture::set(|settings| settings.limits.connections_per_address = Some(2)).with_chat().await;
    let mut connection = HttpConnection::open(&fixture).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let (_, body) = connection.exchange(request("POST", "/chat/negotiate?negotiateVersion=1", "")).await;
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let target = format!("/chat?id={}", answer["connectionToken"].as_str().unwrap());
        statuses.push(connection.exchange(request("POST", &target, JSON_HANDSHAKE)).await.0.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
}

#[tokio::test(crate = "paused")]
async fn a_post_to_a_hub_without_http_transports_makes_no_pipe() {
    let (fixture, _link) = Fixture::start().with_app(chat_by(Transport::WebSockets)).await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let (status, body) = exchange(&fixture, "POST", &format!("/chat?id={token}"), JSON_HANDSHAKE).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert!(body.contains("not supported"), "{body}");
    assert!(fixture.shared.http_transports.is_empty());
    // The token remains valid for the offered transports.
    assert!(Client::upgrade(&fixture, &format!("/chat?id={token}")).await.is_ok());
}

#[tokio::test(crate = "paused")]
async fn a_post_that_comes_a_byte_a_minute_is_ended() {
    let (fixture, mut link) = chat(1).await;
    let (_, target) = poller(&fixture, &mut link).await;
    let (mut socket, began) = (fixture.dial(), Instant::now());
    let head = format!("POST {target} HTTP/1.1\r\nHost: node.example\r\nContent-Length: 1000\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    // The connection must stay open, or the POST would end with it.
    let polls = async { while poll(&fixture, &target).await.0 == StatusCode::OK {} };
    let (mut reader, mut writer) = tokio::io::split(socket);
    let bytes = async {
        // Complete messages: a partial hub message this slow would time out.
        while writer.write_all(b"{\"type\":6}\x1e").await.is_ok() {
            // sleep: the test advances paused time
            sleep(Duration::from_secs(50)).await;
        }
    };
    let mut answer = String::new();
    tokio::select! {
        read = reader.read_to_string(&mut answer) => drop(read.unwrap()),
        () = async { tokio::join!(polls, bytes); } => panic!("nobody ends it"),
    }
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("--body-timeout"), "{answer}");
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(crate = "paused")]
async fn messages_of_one_batch_are_one_event() {
    let (fixture, mut link) = chat(1).await;
    let mut client = EventClient::connect(&fixture, &mut link).await;
    let messages: Vec<ServiceMessage> = (0..3).map(|n| broadcast(&n.to_string())).collect();
    link.send_together(messages).await;
    assert_eq!(client.event().await, "0\u{1e}1\u{1e}2\u{1e}");
}

const UNKNOWN: (u16, &str) = (404, "No Connection with that ID");
const CHANGED: (u16, &str) = (400, "Cannot change transports mid-connection");
const NO_DELETE: (u16, &str) = (400, "Cannot terminate this connection using the DELETE endpoint.");

/// Requires this status and text of the answer to a request without a body.
async fn told(fixture: &Fixture, method: &str, target: &str, expected: (u16, &str)) {
    let (status, text) = exchange(fixture, method, target, "").await;
    assert_eq!((status.as_u16(), text.as_str()), expected, "{method}");
}

/// Requires this status and text of the answer to a GET for events.
async fn told_of_events(fixture: &Fixture, target: &str, expected: (u16, &str)) {
    let get = request_with("GET", target, &[("accept", "text/event-stream")]);
    let (status, text) = HttpConnection::open(fixture).await.exchange(get).await;
    assert_eq!((status.as_u16(), text.as_str()), expected);
}

#[tokio::test(crate = "paused")]
async fn requests_without_a_connection_and_by_another_transport_are_refused_in_official_words() {
    let (fixture, mut link) = chat(1).await;
    for method in ["GET", "POST", "DELETE"] {
        told(&fixture, method, "/chat", (400, "Connection ID required")).await;
        told(&fixture, method, "/chat?id=nobody", UNKNOWN).await;
    }
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    let _socket = Client::connect(&fixture, &mut link, &target).await;
    told(&fixture, "POST", &target, (405, "POST requests are not allowed for WebSocket connections.")).await;
    told(&fixture, "DELETE", &target, NO_DELETE).await;
    told(&fixture, "GET", &target, CHANGED).await;
    told_of_events(&fixture, &target, CHANGED).await;

    let events = EventClient::connect(&fixture, &mut link).await;
    told_of_events(&fixture, &events.target, (409, "")).await;
    told(&fixture, "GET", &events.target, CHANGED).await;
    told(&fixture, "DELETE", &events.target, NO_DELETE).await;
    assert_eq!(Client::upgrade(&fixture, &events.target).await.err(), Some(400));

    let (_, target) = poller(&fixture, &mut link).await;
    told_of_events(&fixture, &target, CHANGED).await;
    told(&fixture, "DELETE", &target, (202, "")).await;
    for method in ["GET", "POST", "DELETE"] {
        told(&fixture, method, &target, UNKNOWN).await;
    }
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_begins_with_a_comment_and_refuses_a_binary_protocol() {
    let (fixture, _link) = chat(1).await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    let mut connection = HttpConnection::open(&fixture).await;
    let answer = connection.begin(request_with("GET", &target, &[("accept", "text/event-stream")])).await;
    let headers = ["content-type", "cache-control", "pragma", "content-encoding"];
    let headers = headers.map(|name| answer.headers()[name].to_str().unwrap().to_owned());
    assert_eq!(headers, ["text/event-stream", "no-cache,no-store,no-transform", "no-cache", "identity"]);
    let handshake = "{\"protocol\":\"messagepack\",\"version\":1}\u{1e}";
    assert_eq!(exchange(&fixture, "POST", &target, handshake).await.0, StatusCode::OK);
    let all = answer.into_body().collect().await.unwrap().to_bytes();
    let text = "Cannot use the 'messagepack' protocol on the current transport. \
                The transport does not support 'Binary' transfer format.";
    let expected = format!(":\r\ndata: {{\"error\":\"{text}\"}}\u{1e}\r\n\r\n");
    assert_eq!(std::str::from_utf8(&all).unwrap(), expected);
}

#[tokio::test(crate = "paused")]
async fn a_poll_brings_the_refusal_of_an_early_handshake_and_then_the_end_once() {
    let (fixture, _link) = chat(1).await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    let handshake = "{\"protocol\":\"pigeon\",\"version\":1}\u{1e}";
    assert_eq!(exchange(&fixture, "POST", &target, handshake).await.0, StatusCode::OK);
    // It has no transport yet.
    told(&fixture, "DELETE", &target, NO_DELETE).await;
    told(&fixture, "GET", &target, (200, "")).await;
    let refusal = "{\"error\":\"The protocol 'pigeon' is not supported.\"}\u{1e}";
    for answer in [(200, refusal), (204, ""), UNKNOWN] {
        told(&fixture, "GET", &target, answer).await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_newer_poll_takes_the_place_of_one_that_waits() {
    let (fixture, mut link) = chat(1).await;
    let (_, target) = poller(&fixture, &mut link).await;
    let news = async {
        // sleep: paused time; both polls wait
        sleep(Duration::from_secs(1)).await;
        link.send(broadcast("1")).await;
    };
    let (one, other, ()) = tokio::join!(poll(&fixture, &target), poll(&fixture, &target), news);
    let mut both = [one, other];
    both.sort_unstable();
    assert_eq!(both, [(StatusCode::OK, "1\u{1e}".to_owned()), (StatusCode::NO_CONTENT, String::new())]);
}
