//! Tests of resuming interrupted links: what the app server keeps, replays and gives up.

use trunkline::HubProtocol::Json;
use trunkline_protocol::service::*;

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient, json_of};

/// Window longer than any of these tests.
pub(crate) const LONG_MS: u64 = 600_000;
/// Window that expires within a test.
pub(crate) const SHORT_MS: u64 = 100;

/// First session of a slot, or its resumption.
pub(crate) fn session(received: Option<u64>, window_ms: u64) -> LinkRequest {
    LinkRequest { session: Some((1, received, window_ms)), ..LinkRequest::of("a", 0) }
}

/// Opens a client on a new resumable session. Uses 2 frames from the proxy and 1 to it.
pub(crate) async fn begin(app: &mut App, window_ms: u64) -> (ProxyLink, ScriptedClient) {
    let (mut link, received) = ProxyLink::open_as(app, session(None, window_ms)).await;
    assert_eq!(received, 0);
    let client = link.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    (link, client)
}

#[tokio::test]
async fn a_cut_link_resumes_with_the_frames_not_received() {
    let mut app = App::start().await;
    let (mut link, client) = begin(&mut app, LONG_MS).await;
    assert!(link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    drop(link);
    app.handle.hub("test").unwrap().clients().all().send("M", (1,)).await.unwrap();
    // According to this proxy, the result was lost with the socket.
    let (mut link, taken) = ProxyLink::open_as(&app, session(Some(1), LONG_MS)).await;
    assert_eq!(taken, 3, "open, handshake, call");
    assert_eq!(json_of(&link.data("c1").await)["result"], 2);
    assert!(matches!(link.next().await, ServiceMessage::BroadcastData(_)), "what was sent meanwhile");
    assert!(link.call(&client, "Add", "[2,1]").await.contains("\"result\":3"));
    app.no_event().await;
    assert!(app.metric("trunkline_app_links_resumed_total{hub=\"test\"} 1"));
    assert!(app.metric("trunkline_app_links{hub=\"test\"} 1"));
}

#[tokio::test]
async fn replayed_frames_are_handled_once() {
    let mut app = App::start().await;
    let (link, client) = begin(&mut app, LONG_MS).await;
    drop(link);
    let block = |n: u8| client.call(None, "Block", &format!("[{n},\"\"]"));
    app.gate.add_permits(10);
    let (mut link, taken) = ProxyLink::open_as(&app, session(Some(1), LONG_MS)).await;
    link.send_all(&[block(1), block(2)]).await;
    assert_eq!([app.event().await, app.event().await], ["unblocked 1", "unblocked 2"]);
    // This dial began before the two frames were known to be received. The response states where to continue.
    let (mut link, again) = ProxyLink::open_as(&app, session(Some(1), LONG_MS)).await;
    assert_eq!((taken, again), (2, 4));
    link.send(block(3)).await;
    assert_eq!(app.event().await, "unblocked 3");
    app.no_event().await;
}

#[tokio::test]
async fn a_session_has_one_socket_and_the_old_one_goes_first() {
    let mut app = App::start().await;
    let (mut old, client) = begin(&mut app, LONG_MS).await;
    let (mut new, _) = ProxyLink::open_as(&app, session(Some(1), LONG_MS)).await;
    old.closed().await;
    assert!(new.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    app.no_event().await;
}

#[tokio::test]
async fn an_unknown_session_and_a_late_dial_are_refused() {
    let mut app = App::start().await;
    let unknown = session(Some(0), LONG_MS).dial(&app).await.unwrap_err();
    assert_eq!(unknown.status().as_u16(), 410);
    let (mut link, client) = begin(&mut app, LONG_MS).await;
    drop(LinkRequest { session: Some((0, None, LONG_MS)), ..LinkRequest::of("b", 0) }.dial(&app).await.unwrap_err());
    let late = session(Some(7), LONG_MS).dial(&app).await.unwrap_err();
    assert_eq!(late.status().as_u16(), 412);
    assert!(link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"), "the live socket is not touched");
}

#[tokio::test]
async fn the_next_session_of_a_slot_ends_the_one_before() {
    let mut app = App::start().await;
    let (link, _) = begin(&mut app, LONG_MS).await;
    drop(link);
    let next = LinkRequest { session: Some((2, None, LONG_MS)), ..LinkRequest::of("a", 0) };
    let (mut link, _) = ProxyLink::open_as(&app, next).await;
    assert_eq!(app.event().await, "disconnected c1 The link to the proxy was lost.");
    link.client("c2", Json).await;
    let over = session(Some(1), LONG_MS).dial(&app).await.unwrap_err();
    assert_eq!(over.status().as_u16(), 410);
}

#[tokio::test]
async fn a_proxy_that_stays_away_is_given_up_and_its_connections_close_once() {
    let mut app = App::start().await;
    let (link, _) = begin(&mut app, SHORT_MS).await;
    drop(link);
    assert_eq!(app.event().await, "disconnected c1 The link to the proxy was lost.");
    app.no_event().await;
    assert!(app.metric("trunkline_app_connections{hub=\"test\"} 0"));
}

#[tokio::test]
async fn a_proxy_that_drained_has_no_resume_window() {
    let mut app = App::start().await;
    let (mut link, _) = begin(&mut app, LONG_MS).await;
    link.end_session().await;
    assert_eq!(app.event().await, "disconnected c1 The link to the proxy was lost.");
}

#[tokio::test]
async fn the_send_link_stays_while_its_session_lives_and_keeps_its_order() {
    let mut app = App::start().await;
    let (lane, _) = begin(&mut app, LONG_MS).await;
    let mut other = ProxyLink::open(&app, "a", 1).await;
    drop(lane);
    until(|| app.metric("trunkline_app_links{hub=\"test\"} 1")).await;
    let everyone = app.handle.hub("test").unwrap().clients().all();
    for n in 0..3 {
        everyone.send("M", (n,)).await.unwrap();
    }
    other.quiet().await;
    let (mut lane, _) = ProxyLink::open_as(&app, session(Some(1), LONG_MS)).await;
    for n in 0..3_u8 {
        let ServiceMessage::BroadcastData(data) = lane.next().await else { panic!() };
        let invocation = crate::harness::invocation(Json, data.payloads.get(Json).unwrap());
        assert_eq!(Json.value::<u8>(&invocation.arguments[0]).unwrap(), n);
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}
