//! Tests of methods that return a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use serde_json::json;
use tokio::sync::mpsc;
use trunkline::HubProtocol::MessagePack;
use trunkline::{Context, Hub, HubError, UploadStream};
use trunkline_protocol::service::ServiceMessage;

use crate::harness::{App, ProxyLink};

/// Reports when it is dropped.
struct Alarm(mpsc::UnboundedSender<&'static str>);

impl Drop for Alarm {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

async fn count(to: u32) -> impl Stream<Item = u32> {
    stream::iter(0..to)
}

async fn count_if_few(to: u32) -> Result<impl Stream<Item = u32>, HubError> {
    if to > 9 { Err(HubError::new("too many")) } else { Ok(stream::iter(0..to)) }
}

async fn break_off(shown: bool) -> impl Stream<Item = Result<u32, HubError>> {
    let error = if shown { HubError::new("as asked") } else { HubError::named("TimeoutException", "late") };
    stream::iter([Ok(1), Err(error), Ok(3)])
}

async fn panic_on(at: u32) -> impl Stream<Item = u32> {
    stream::iter(0..).inspect(move |n| assert_ne!(*n, at, "on purpose"))
}

async fn double(_: Context, numbers: UploadStream<u32>) -> impl Stream<Item = Result<u32, HubError>> {
    numbers.map(|number| number.map(|number| number * 2))
}

fn with_streams(hub: Hub) -> Hub {
    hub.method("Count", count)
        .method("CountIfFew", count_if_few)
        .method("BreakOff", break_off)
        .method("PanicOn", panic_on)
        .method("Double", double)
        .method("Slow", async || {
            tokio::task::yield_now().await;
            stream::iter([1])
        })
}

async fn start() -> App {
    App::start_hub(with_streams).await
}

#[tokio::test]
async fn items_arrive_in_order_and_then_the_end_without_a_result() {
    let app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    for method in ["Count", "count", "CountIfFew"] {
        let call = json!({"type": 4, "invocationId": "1", "target": method, "arguments": [3]});
        link.send(client.json(&call)).await;
        for n in 0..3 {
            assert_eq!(link.json("c1").await, json!({"type": 2, "invocationId": "1", "item": n}));
        }
        assert_eq!(link.data("c1").await.payload, "{\"type\":3,\"invocationId\":\"1\"}\x1e");
    }
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "Slow", "arguments": []}))).await;
    assert_eq!(link.json("c1").await["item"], 1);
    assert_eq!(link.json("c1").await["type"], 3);
    assert!(app.metric("trunkline_app_stream_items_down_total{hub=\"test\"} 10"));
}

#[tokio::test]
async fn a_client_of_message_pack_gets_its_stream_in_that() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = link.client("c1", MessagePack).await;
    link.send(client.bytes(super::hex("0d950480a130a5436f756e749101"))).await;
    assert_eq!(link.data("c1").await.payload, super::hex("06940280a13000"));
    assert_eq!(link.data("c1").await.payload, super::hex("06940380a13002"));
}

#[tokio::test]
async fn a_failed_stream_ends_with_its_error() {
    let app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let base = "An error occurred on the server while streaming results.";
    for (shown, text) in [(true, format!("{base} HubException: as asked")), (false, base.to_owned())] {
        let call = json!({"type": 4, "invocationId": "1", "target": "BreakOff", "arguments": [shown]});
        link.send(client.json(&call)).await;
        assert_eq!(link.json("c1").await["item"], 1);
        assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1", "error": text}));
    }
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "PanicOn", "arguments": [0]}))).await;
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1", "error": base}));
}

#[tokio::test]
async fn a_stream_that_never_begins_fails_as_a_call_does() {
    let app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "CountIfFew", "arguments": [10]}))).await;
    let text = "An unexpected error occurred invoking 'CountIfFew' on the server. HubException: too many";
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1", "error": text}));
}

#[tokio::test]
async fn a_result_of_a_streaming_method_is_refused() {
    let app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let text = "The client attempted to invoke the streaming 'Count' method with a non-streaming invocation.";
    let answer = link.call(&client, "Count", "[3]").await;
    assert_eq!(answer, format!("{{\"type\":3,\"invocationId\":\"7\",\"error\":\"{text}\"}}\x1e"));
}

/// Starts an app with an endless stream, which reports when it is dropped.
async fn endless() -> (App, mpsc::UnboundedReceiver<&'static str>) {
    let (sender, dropped) = mpsc::unbounded_channel();
    let endless = move || {
        let alarm = Alarm(sender.clone());
        async move {
            stream::once(async { 0 }).chain(stream::pending()).inspect(move |_| {
                let _ = &alarm;
            })
        }
    };
    (App::start_hub(|hub| hub.method("Endless", endless)).await, dropped)
}

#[tokio::test]
async fn a_cancelled_stream_is_dropped_and_ends_without_an_error() {
    let (app, mut dropped) = endless().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "Endless", "arguments": []}))).await;
    assert_eq!(link.json("c1").await["item"], 0);
    assert!(app.metric("trunkline_app_streams_running{hub=\"test\"} 1"));
    link.send(client.json(&json!({"type": 5, "invocationId": "2"}))).await;
    link.quiet().await;
    link.send(client.json(&json!({"type": 5, "invocationId": "1"}))).await;
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1"}));
    assert_eq!(dropped.recv().await, Some("dropped"));
    link.send(client.json(&json!({"type": 5, "invocationId": "1"}))).await;
    link.quiet().await;
    assert!(app.metric("trunkline_app_streams_running{hub=\"test\"} 0"));
}

#[tokio::test]
async fn a_stream_ends_with_its_connection_before_the_hook_runs() {
    let (mut app, mut dropped) = endless().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    assert_eq!(app.event().await, "connected c1");
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "Endless", "arguments": []}))).await;
    assert_eq!(link.json("c1").await["item"], 0);
    link.send(client.left(None)).await;
    assert_eq!(app.event().await, "disconnected c1 ");
    assert_eq!(dropped.try_recv(), Ok("dropped"));
    link.quiet().await;
}

#[tokio::test]
async fn an_id_that_is_active_can_not_be_used_again() {
    let (app, _dropped) = endless().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let call = json!({"type": 4, "invocationId": "1", "target": "Endless", "arguments": []});
    link.send_all(&[client.json(&call), client.json(&call)]).await;
    let mut got = [link.json("c1").await, link.json("c1").await];
    got.sort_by_key(|message| message["type"].as_u64());
    let text = "Invocation ID '1' is already in use.";
    assert_eq!(got[0]["item"], 0);
    assert_eq!(got[1], json!({"type": 3, "invocationId": "1", "error": text}));
    link.send(client.json(&json!({"type": 5, "invocationId": "1"}))).await;
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1"}));
    link.send(client.json(&call)).await;
    assert_eq!(link.json("c1").await["item"], 0, "it is free again");
}

#[tokio::test]
async fn items_are_made_only_as_the_link_takes_them() {
    let made = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&made);
    let flood = move || {
        let counter = Arc::clone(&counter);
        async move {
            stream::iter(0..2000).map(move |_: u32| {
                counter.fetch_add(1, Ordering::Relaxed);
                "x".repeat(32 * 1024)
            })
        }
    };
    let app = App::start_with(|hub| hub.method("Flood", flood), |server| server.link_outbox_max_bytes(64 * 1024)).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "Flood", "arguments": []}))).await;
    // Nothing is read here: 64 MiB exceed the outbox and the sockets' buffers.
    let mut before = 0;
    loop {
        // sleep: no event shows from outside that a stream has stopped producing items
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = made.load(Ordering::Relaxed);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    assert!(before < 1500, "{before}");
    link.send(client.json(&json!({"type": 5, "invocationId": "1"}))).await;
    let mut items = 0;
    loop {
        match link.next().await {
            ServiceMessage::ConnectionData(data) if data.payload.starts_with(b"{\"type\":2") => items += 1,
            ServiceMessage::ConnectionData(data) => break assert!(data.payload.starts_with(b"{\"type\":3")),
            other => panic!("{other:?}"),
        }
    }
    assert!(items < 2000, "a cancellation ends a stream that waits for the link");
}

#[tokio::test]
async fn a_stream_is_uploaded_while_another_is_downloaded() {
    let app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let call = json!({"type": 4, "invocationId": "1", "target": "Double", "arguments": [], "streamIds": ["0"]});
    link.send(client.json(&call)).await;
    for n in [1, 2, 3] {
        link.send(client.json(&json!({"type": 2, "invocationId": "0", "item": n}))).await;
        assert_eq!(link.json("c1").await, json!({"type": 2, "invocationId": "1", "item": 2 * n}));
    }
    link.send(client.json(&json!({"type": 3, "invocationId": "0"}))).await;
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1"}));
}
