//! Server-Sent Events and long polling: connections that requests carry.

use std::time::Duration;

use ::http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::ServiceMessage;

use super::app::{App, AppLink, broadcast};
use super::client::{JSON_HANDSHAKE, PING};
use super::http::{HttpConnection, exchange, negotiate, request};
use super::stage::{Stage, run, settings};

async fn chat(shards: u16) -> (Stage, App, AppLink) {
    let stage = Stage::with(settings(), shards);
    let mut app = stage.app("app-1", vec![HubManifest::new("chat", "/chat")]);
    let link = app.link().await;
    (stage, app, link)
}

/// The next event of a stream that is no keep-alive.
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

#[test]
fn an_event_stream_carries_messages_down_and_posts_carry_them_up_from_any_shard() {
    run(async {
        let (stage, _app, mut link) = chat(2).await;
        let (id, token) = negotiate(&stage, "/chat", "").await;
        let target = format!("/chat?id={token}");
        let mut stream = HttpConnection::open(&stage).await;
        let mut get = request("GET", &target, "");
        get.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        let answer = stream.begin(get).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        let mut read = String::new();
        assert_eq!(exchange(&stage, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
        assert_eq!(link.opening().await.connection_id, id);
        link.data().await;
        link.write(&id, "{}\u{1e}").await;
        assert_eq!(event(&mut body, &mut read).await, "{}\u{1e}");
        link.send(broadcast("\"news\"")).await;
        assert_eq!(event(&mut body, &mut read).await, "\"news\"\u{1e}");
        let call = "{\"type\":1,\"target\":\"M\",\"arguments\":[]}\u{1e}";
        assert_eq!(exchange(&stage, "POST", &target, call).await.0, StatusCode::OK);
        assert_eq!(link.data().await.0, call);
        drop((stream, body));
        assert_eq!(link.close().await.connection_id, id);
    });
}

/// Polls once: the status and all messages.
async fn poll(stage: &Stage, target: &str) -> (StatusCode, String) {
    exchange(stage, "GET", target, "").await
}

#[test]
fn polls_bring_whole_messages_and_a_delete_ends_the_connection() {
    run(async {
        let (stage, _app, mut link) = chat(2).await;
        let (id, token) = negotiate(&stage, "/chat", "").await;
        let target = format!("/chat?id={token}");
        assert_eq!(poll(&stage, &target).await, (StatusCode::OK, String::new()), "the first poll opens");
        assert_eq!(exchange(&stage, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
        link.opening().await;
        link.data().await;
        link.write(&id, "{}\u{1e}").await;
        assert_eq!(poll(&stage, &target).await, (StatusCode::OK, "{}\u{1e}".into()));
        link.send_together([broadcast("1"), broadcast("2")]).await;
        link.fence().await;
        assert_eq!(poll(&stage, &target).await, (StatusCode::OK, "1\u{1e}2\u{1e}".into()));
        let call = "{\"type\":1,\"target\":\"M\",\"arguments\":[]}\u{1e}";
        assert_eq!(exchange(&stage, "POST", &target, call).await.0, StatusCode::OK);
        assert_eq!(link.data().await.0, call);
        assert_eq!(exchange(&stage, "DELETE", &target, "").await.0, StatusCode::ACCEPTED);
        assert_eq!(link.close().await.connection_id, id);
        assert_eq!(poll(&stage, &target).await.0, StatusCode::NOT_FOUND);
    });
}

#[test]
fn a_poll_that_brings_nothing_ends_after_its_time_out() {
    run(async {
        let (stage, _app, mut link) = chat(1).await;
        let (id, token) = negotiate(&stage, "/chat", "").await;
        let target = format!("/chat?id={token}");
        poll(&stage, &target).await;
        exchange(&stage, "POST", &target, JSON_HANDSHAKE).await;
        link.opening().await;
        link.data().await;
        link.write(&id, "{}\u{1e}").await;
        poll(&stage, &target).await;
        let begun = Instant::now();
        assert_eq!(poll(&stage, &target).await, (StatusCode::OK, String::new()));
        assert_eq!(begun.elapsed().as_secs(), stage.shared.settings.http_transports.poll_timeout.as_secs());
    });
}

#[test]
fn a_client_that_stops_polling_is_taken_out_after_the_disconnect_time_out() {
    run(async {
        let (stage, _app, mut link) = chat(2).await;
        let (id, token) = negotiate(&stage, "/chat", "").await;
        let target = format!("/chat?id={token}");
        poll(&stage, &target).await;
        exchange(&stage, "POST", &target, JSON_HANDSHAKE).await;
        link.opening().await;
        link.data().await;
        link.write(&id, "{}\u{1e}").await;
        poll(&stage, &target).await;
        let begun = Instant::now();
        assert_eq!(link.close().await.connection_id, id);
        let most = Duration::from_secs(u64::from(stage.shared.settings.http_transports.disconnect_timeout_s) + 2);
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        assert!(matches!(poll(&stage, &target).await.0, StatusCode::NOT_FOUND | StatusCode::NO_CONTENT));
        assert!(stage.shared.http_transports.is_empty());
    });
}

#[test]
fn a_hub_with_one_transport_refuses_the_others() {
    run(async {
        let stage = Stage::start();
        let transports = vec![trunkline_protocol::manifest::Transport::WebSockets];
        let hub = HubManifest { transports, ..HubManifest::new("chat", "/chat") };
        let mut app = stage.app("app-1", vec![hub]);
        let mut link = app.link().await;
        let (_, token) = negotiate(&stage, "/chat", "").await;
        let target = format!("/chat?id={token}");
        let get: Request<String> = request("GET", &target, "");
        let (status, body) = HttpConnection::open(&stage).await.exchange(get).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
        link.fence().await;
    });
}

#[test]
fn messages_of_one_batch_are_one_event() {
    run(async {
        let (stage, _app, mut link) = chat(1).await;
        let (id, token) = negotiate(&stage, "/chat", "").await;
        let target = format!("/chat?id={token}");
        let mut stream = HttpConnection::open(&stage).await;
        let mut get = request("GET", &target, "");
        get.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        let mut body = stream.begin(get).await.into_body();
        let mut read = String::new();
        exchange(&stage, "POST", &target, JSON_HANDSHAKE).await;
        link.opening().await;
        link.data().await;
        link.write(&id, "{}\u{1e}").await;
        assert_eq!(event(&mut body, &mut read).await, "{}\u{1e}");
        let messages: Vec<ServiceMessage> = (0..3).map(|n| broadcast(&n.to_string())).collect();
        link.send_together(messages).await;
        assert_eq!(event(&mut body, &mut read).await, "0\u{1e}1\u{1e}2\u{1e}");
    });
}
