//! New clients while all links of their hub are lost: they wait a limited time for a link to return.

use std::time::Duration;

use ::http::StatusCode;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::negotiate::Decision;

use super::app::{App, AppLink};
use super::client::{Client, JSON_HANDSHAKE};
use super::fixture::{Fixture, paused};
use super::http::{HttpConnection, exchange, negotiate, request_with};
use super::hub_message::cast;
use super::scene::{LinkedApp, chat};
use crate::ground::config::Settings;

const SECOND: Duration = Duration::from_secs(1);

/// Node with an app server that has just lost its only link, and an earlier connection token.
struct LostLink {
    fixture: &'static Fixture,
    app: App,
    target: String,
    began: Instant,
}

impl LostLink {
    async fn with(change: impl FnOnce(&mut Settings), hub: HubManifest) -> Self {
        let (fixture, link) = Fixture::set(change).with_app(hub).await;
        // Test tasks are local and can't borrow.
        let fixture: &'static Fixture = Box::leak(Box::new(fixture));
        let (_, token) = negotiate(fixture, "/chat", "").await;
        let app = lose(fixture, link).await;
        Self { fixture, app, target: format!("/chat?id={token}"), began: Instant::now() }
    }

    async fn new() -> Self {
        Self::with(|_| {}, chat(|_| {})).await
    }

    async fn link_after_a_second(&mut self) -> AppLink {
        // sleep: the test advances paused time
        sleep(SECOND).await;
        self.app.link().await
    }

    fn elapsed_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

/// Cuts a link, and waits until the node has noticed.
async fn lose(fixture: &Fixture, link: LinkedApp) -> App {
    let app = link.cut();
    let hub = fixture.shared.hubs.find("/chat").unwrap();
    while hub.is_served() {
        tokio::task::yield_now().await;
    }
    app
}

#[tokio::test(crate = "paused")]
async fn a_websocket_waits_for_the_link_that_returns() {
    let mut lost = LostLink::new().await;
    let (fixture, target) = (lost.fixture, lost.target.clone());
    let (client, mut link) = tokio::join!(Client::upgrade(fixture, &target), lost.link_after_a_second());
    let mut client = client.unwrap();
    client.send(JSON_HANDSHAKE).await;
    client.accept(&mut link).await;
    client.fence(&link).await;
    assert_eq!(lost.elapsed_s(), 1);
}

#[tokio::test(crate = "paused")]
async fn negotiation_waits_for_the_link_that_returns() {
    let mut lost = LostLink::new().await;
    let (_, _link) = tokio::join!(negotiate(lost.fixture, "/chat", ""), lost.link_after_a_second());
    assert_eq!(lost.elapsed_s(), 1);
}

#[tokio::test(crate = "paused")]
async fn the_app_is_asked_when_its_link_has_returned() {
    let hub = chat(|hub| hub.asks_app = true);
    let mut lost = LostLink::with(|_| {}, hub).await;
    *lost.app.dialler.decision.lock().unwrap() = Some(Decision::default());
    let (_, _link) = tokio::join!(negotiate(lost.fixture, "/chat", ""), lost.link_after_a_second());
    assert_eq!(lost.elapsed_s(), 1);
}

#[tokio::test(crate = "paused")]
async fn event_streams_and_polls_wait_for_the_link_that_returns() {
    for accept in ["text/event-stream", "*/*"] {
        let mut lost = LostLink::new().await;
        let mut connection = HttpConnection::open(lost.fixture).await;
        let get = request_with("GET", &lost.target, &[("accept", accept)]);
        let (answer, mut link) = tokio::join!(connection.begin(get), lost.link_after_a_second());
        assert_eq!((answer.status(), lost.elapsed_s()), (StatusCode::OK, 1), "{accept}");
        let target = lost.target.clone();
        assert_eq!(exchange(lost.fixture, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
        link.opening().await;
    }
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_that_can_not_begin_gets_a_status_that_no_client_library_repeats() {
    let relay = |settings: &mut Settings| settings.relay.pass_through = true;
    let lost = LostLink::with(relay, HubManifest::new("chat", "/chat")).await;
    let status = async |method: &str, target: &str, accept: &str| {
        let request = request_with(method, target, &[("accept", accept)]);
        HttpConnection::open(lost.fixture).await.begin(request).await.status().as_u16()
    };
    let of_unknown_hub = lost.target.replace("/chat", "/forgotten");
    for target in [&lost.target, &of_unknown_hub] {
        assert_eq!(status("GET", target, "text/event-stream").await, 404, "{target}");
        assert_eq!(status("GET", target, "*/*").await, 503, "{target}");
    }
    assert_eq!(status("POST", "/chat/negotiate?negotiateVersion=1", "*/*").await, 503);
    assert_eq!(status("GET", "/events?id=7", "text/event-stream").await, 503, "an event stream of the app's own");
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_link_is_lost_during_its_handshake_waits_too() {
    let (fixture, link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    let mut app = lose(&fixture, link).await;
    client.send(JSON_HANDSHAKE).await;
    // sleep: the test advances paused time
    sleep(SECOND).await;
    let mut link = app.link().await;
    client.accept(&mut link).await;
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_link_that_does_not_return_is_waited_for_during_its_window_and_then_the_answer_is_503() {
    let lost = LostLink::new().await;
    assert_eq!(Client::upgrade(lost.fixture, &lost.target).await.err(), Some(503));
    assert_eq!(lost.elapsed_s(), 10);
    assert_eq!(Client::upgrade(lost.fixture, &lost.target).await.err(), Some(503));
    assert_eq!(lost.elapsed_s(), 10, "at once");
}

#[tokio::test(crate = "paused")]
async fn a_new_client_waits_at_most_for_the_handshake_or_hold_timeout() {
    let hub = chat(|hub| hub.handshake_timeout_ms = 4_000);
    let lost = LostLink::with(|settings| settings.links.resume_window_ms = 60_000, hub.clone()).await;
    assert_eq!(exchange(lost.fixture, "POST", "/chat/negotiate", "").await.0, 503);
    assert_eq!(lost.elapsed_s(), 4);
    let lost = LostLink::with(|settings| settings.rehoming.hold_timeout_s = 0, hub).await;
    assert_eq!(exchange(lost.fixture, "POST", "/chat/negotiate", "").await.0, 503);
    assert_eq!(lost.elapsed_s(), 0);
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_is_given_up_is_waited_for_no_longer() {
    let lost = LostLink::new().await;
    let (answer, ()) = tokio::join!(Client::upgrade(lost.fixture, &lost.target), async {
        // sleep: the test advances paused time
        sleep(SECOND).await;
        lost.app.retire();
    });
    assert_eq!((answer.err(), lost.elapsed_s()), (Some(503), 1));
}

#[tokio::test(crate = "paused")]
async fn a_stopping_node_lets_no_client_wait() {
    let lost = LostLink::new().await;
    let (answer, ()) = tokio::join!(Client::upgrade(lost.fixture, &lost.target), async {
        // sleep: the test advances paused time
        sleep(SECOND).await;
        lost.fixture.shared.refuse_clients();
    });
    assert_eq!((answer.err(), lost.elapsed_s()), (Some(503), 1));
}

#[tokio::test(crate = "paused")]
async fn requests_of_a_connection_that_has_begun_wait_for_no_link() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    assert_eq!(exchange(&fixture, "GET", &target, "").await.0, StatusCode::OK);
    assert_eq!(exchange(&fixture, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
    link.opening().await;
    let _app = lose(&fixture, link).await;
    let began = Instant::now();
    let ping = "{\"type\":6}\u{1e}";
    assert_eq!(exchange(&fixture, "POST", &target, ping).await.0, StatusCode::OK);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_leaves_while_it_waits_leaves_nothing_behind() {
    let mut lost = LostLink::new().await;
    let target = lost.target.clone();
    let (fixture, of_task) = (lost.fixture, target.clone());
    let waiting = spawn_local(async move { Client::upgrade(fixture, &of_task).await.is_ok() });
    // sleep: the test advances paused time
    sleep(SECOND).await;
    waiting.abort();
    let mut link = lost.app.link().await;
    let mut client = Client::connect(lost.fixture, &mut link, &target).await;
    client.send(&cast("M")).await;
    link.data().await;
    client.fence(&link).await;
}
