//! Tests of hubs served without a proxy: the proxy's code inside the app, with real sockets and clients.

mod browser;
mod direct;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::HubProtocol::{self, Json, MessagePack};
use trunkline::{BuildError, Context, Hub, Negotiation, Server, User};
use trunkline_protocol::service::ServiceMessage;

use crate::harness::{self, App, ProxyLink};
use browser::{Browser, call, negotiate, post};

async fn embedded() -> App {
    App::start_with(|hub| hub, |server| server.embedded()).await
}

#[tokio::test]
async fn a_client_is_served_from_negotiate_to_its_end() {
    let mut app = embedded().await;
    let negotiated = negotiate(&app, "/test").await;
    assert_eq!(negotiated["availableTransports"][0]["transport"], "WebSockets");
    let (id, token) = (negotiated["connectionId"].as_str().unwrap(), negotiated["connectionToken"].as_str().unwrap());
    let mut ann = Browser::connect(&app, &format!("/test?id={token}"), Json).await;
    assert_eq!(app.event().await, format!("connected {id}"));
    assert_eq!(ann.call("Add", "[2,3]").await, [r#"{"type":3,"invocationId":"1","result":5}"#]);
    drop(ann);
    assert_eq!(app.event().await, format!("disconnected {id} "));
    assert!(app.metric("trunkline_app_connections{hub=\"test\"} 0"), "{}", app.handle.metrics_text());
}

#[tokio::test]
async fn the_node_inside_is_linked_without_anybody_calling() {
    let app = embedded().await;
    app.handle.linked().await;
    let hub = app.handle.hub("test").unwrap();
    hub.linked().await;
    assert_eq!(hub.proxies(), 1);
}

#[tokio::test]
async fn sends_reach_groups_and_everyone() {
    let app = embedded().await;
    let (mut ann, mut bob) = (Browser::new(&app, Json).await, Browser::new(&app, MessagePack).await);
    ann.call("Join", r#"["g"]"#).await;
    bob.call("Join", r#"["g"]"#).await;
    let message = r#"{"type":1,"target":"M","arguments":[1]}"#;
    assert_eq!(ann.call("Send", r#"["group"]"#).await[0], message);
    assert_eq!(bob.next().await.as_ref(), b"\x09\x96\x01\x80\xc0\xa1M\x91\x01\x90");
    ann.call("Send", r#"["others_in_group"]"#).await;
    bob.next().await;
    let sent = app.handle.hub("test").unwrap().clients().all().send("M", (1,)).await.unwrap();
    assert_eq!(sent.proxies(), 1, "the node inside is one of them");
    assert_eq!(tokio::spawn(async move { sent.acknowledged().await }).await.unwrap(), Ok(1));
    assert_eq!(ann.next().await.as_ref(), format!("{message}\x1e").as_bytes());
    bob.next().await;
}

#[tokio::test]
async fn a_shutdown_lets_clients_reconnect_and_runs_on_disconnected() {
    let mut app = embedded().await;
    let mut ann = Browser::new(&app, Json).await;
    app.event().await;
    let handle = app.handle.clone();
    let shutdown = tokio::spawn(async move { handle.shutdown().await });
    assert_eq!(ann.next().await.as_ref(), b"{\"type\":7,\"allowReconnect\":true}\x1e");
    ann.closed().await;
    let event = app.event().await;
    assert!(event.starts_with("disconnected ") && event.ends_with(' '), "{event}");
    shutdown.await.unwrap();
    assert_eq!(post(&app, "/test/negotiate?negotiateVersion=1", "").await.0, 503);
}

#[tokio::test]
async fn a_proxy_may_be_in_front_at_the_same_time() {
    let app = embedded().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let far = link.client("far", Json).await;
    let mut near = Browser::new(&app, Json).await;
    link.send(far.call(None, "Send", r#"["all"]"#)).await;
    assert!(matches!(link.next().await, ServiceMessage::BroadcastData(_)));
    assert_eq!(near.next().await.as_ref(), b"{\"type\":1,\"target\":\"M\",\"arguments\":[1]}\x1e");
    let shown = near.call("Send", r#"["all"]"#).await;
    assert_eq!(shown[1], r#"{"type":3,"invocationId":"1","result":2}"#, "two nodes took it");
}

#[tokio::test]
async fn only_pages_of_the_app_and_of_allowed_origins_may_connect() {
    let app = App::start_with(|hub| hub, |server| server.embedded().allow_origin("https://app.example")).await;
    let own = format!("http://{}", app.address);
    for (origin, status) in [
        (own.as_str(), 101),
        ("https://app.example", 101),
        ("https://evil.example", 403),
        ("http://127.0.0.1:1", 403), // only the development key trusts this machine
    ] {
        assert_eq!(browser::upgrade_from(&app, origin).await, status, "{origin}");
        let (_, answer) = post(&app, "/test/negotiate?negotiateVersion=1", &format!("Origin: {origin}\r\n")).await;
        let is_allowed = answer.to_lowercase().contains(&format!("access-control-allow-origin: {origin}"));
        assert_eq!(is_allowed, status == 101, "{answer}");
    }
}

#[tokio::test]
async fn paths_are_the_routers_but_a_trailing_slash_does_not_count() {
    let app = embedded().await;
    for (path, status) in [("/test/", 400), ("/test", 400), ("/TEST", 404), ("/test/x", 404)] {
        let answer = app.exchange_in_the_open("GET", path, ("accept", "*/*")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    Browser::connect(&app, "/test/", Json).await;
}

#[tokio::test]
async fn sockets_of_any_server_are_served() {
    let hub = Hub::new("/test").method("Nothing", async || ());
    let routes: Router = Server::new().access_key(harness::KEY).hub(hub).embedded().into_router().unwrap();
    let (near, far) = tokio::io::duplex(1024);
    tokio::spawn(async { axum::serve(browser::Pipe::new(far), routes).await });
    let mut ann = Browser::over(near, "ws://app/test", Json).await;
    assert_eq!(ann.call("Nothing", "[]").await, [r#"{"type":3,"invocationId":"1","result":null}"#]);
}

#[tokio::test]
async fn a_policy_refuses_at_the_negotiation_as_a_missing_user_is_refused() {
    let app = App::start_with(|hub| hub.require_claim("role", "admin"), |server| server.embedded()).await;
    let status = async |token: &str| {
        let header = format!("Authorization: {token}\r\n");
        post(&app, "/test/negotiate?negotiateVersion=1", &header).await.0
    };
    let of_role = |role| format!("Bearer {}", app.handle.token("ann").claim("role", role).sign().unwrap());
    assert_eq!(status(&of_role("admin")).await, 200);
    assert_eq!(status(&of_role("guest")).await, 403);
    assert_eq!(status("").await, 403);
    assert_eq!(status("Bearer nonsense").await, 401, "what is wrong is the token");
    let own = format!("http://{}", app.address);
    assert_eq!(browser::upgrade_from(&app, &own).await, 403, "without a negotiation");
}

#[tokio::test]
async fn a_hub_that_needs_a_user_and_has_a_policy_refuses_strangers_as_such() {
    let guarded = |hub: Hub| hub.require_user().require_claim("role", "admin");
    let app = App::start_with(guarded, |server| server.embedded()).await;
    let (status, _) = post(&app, "/test/negotiate?negotiateVersion=1", "").await;
    assert_eq!(status, 401);
}

/// Messages of a client after its handshake. Each call is answered before the next one.
const SCRIPT: [(&str, &str); 14] = [
    ("Echo", r#"[{"a":[1,-2,1.5,null,true,"ü"]}]"#),
    ("Add", "[40,2]"),
    ("add", "[40,2]"),
    ("Add", "[40]"),
    ("Add", r#"["x","y"]"#),
    ("Nope", "[]"),
    ("Nothing", "[]"),
    ("Fail", "[]"),
    ("Break", "[]"),
    ("Panic", "[]"),
    ("Join", r#"["g"]"#),
    ("Mixed", "[]"),
    ("Send", r#"["nobody"]"#),
    ("Leave", r#"["g"]"#),
];

/// Bytes that the client receives without a proxy.
async fn transcript_embedded(protocol: HubProtocol) -> Vec<Bytes> {
    let app = embedded().await;
    let mut client = Browser::new(&app, protocol).await;
    let mut transcript = Vec::new();
    for (n, (target, arguments)) in SCRIPT.iter().enumerate() {
        client.send(call(protocol, n, target, arguments)).await;
        while transcript.last().is_none_or(|last| !browser::completes(protocol, last, n)) {
            transcript.push(client.next().await);
        }
    }
    transcript
}

/// Bytes that a proxy would send to the client.
async fn transcript_behind_a_proxy(protocol: HubProtocol) -> Vec<Bytes> {
    let app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = link.client("c", protocol).await;
    let mut transcript = Vec::new();
    for (n, (target, arguments)) in SCRIPT.iter().enumerate() {
        link.send(client.bytes(call(protocol, n, target, arguments))).await;
        while transcript.last().is_none_or(|last| !browser::completes(protocol, last, n)) {
            let payloads = match link.next().await {
                ServiceMessage::ConnectionData(data) => {
                    transcript.push(data.payload);
                    continue;
                }
                ServiceMessage::JoinGroupWithAck(join) => {
                    link.send(browser::done(join.ack_id)).await;
                    continue;
                }
                ServiceMessage::LeaveGroupWithAck(leave) => {
                    link.send(browser::done(leave.ack_id)).await;
                    continue;
                }
                ServiceMessage::MultiConnectionData(send) => send.payloads,
                ServiceMessage::BroadcastData(send) => send.payloads,
                ServiceMessage::GroupBroadcastData(send) => send.payloads,
                // In the other transcript the client is not authenticated, so sends to users reach no client.
                ServiceMessage::UserData(_) => continue,
                other => panic!("{other:?}"),
            };
            transcript.push(payloads.get(protocol).unwrap().clone());
        }
    }
    transcript
}

#[tokio::test]
async fn a_client_gets_the_same_bytes_with_a_proxy_and_without() {
    for protocol in [Json, MessagePack] {
        let (near, far) = tokio::join!(transcript_embedded(protocol), transcript_behind_a_proxy(protocol));
        assert_eq!(near, far);
        assert_eq!(near.len(), SCRIPT.len() + 9, "each call is answered, and nine sends come before");
    }
}

async fn decide(
    headers: HeaderMap,
    address: ConnectInfo<SocketAddr>,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    let user = headers.get("x-user").and_then(|user| user.to_str().ok());
    let user = user.ok_or_else(|| (StatusCode::PAYMENT_REQUIRED, format!("pay, {}", address.ip())))?;
    Ok(([(SET_COOKIE, "seen=1")], Negotiation::user(user)))
}

#[tokio::test]
async fn the_app_decides_about_each_negotiation() {
    let hub = |hub: Hub| hub.require_authentication().on_negotiate(decide);
    let app = App::start_with(hub, |server| server.embedded()).await;
    let negotiate = "/test/negotiate?negotiateVersion=1";
    let (status, answer) = post(&app, negotiate, "").await;
    assert!(status == 402 && answer.ends_with("pay, 127.0.0.1"), "{answer}");
    let (status, answer) = post(&app, negotiate, "X-User: ann\r\n").await;
    assert!(status == 200 && answer.contains("set-cookie: seen=1"), "{answer}");
    let negotiated: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let token = negotiated["connectionToken"].as_str().unwrap();
    let mut ann = Browser::connect(&app, &format!("/test?id={token}"), Json).await;
    assert_eq!(ann.call("Add", "[2,3]").await, [r#"{"type":3,"invocationId":"1","result":5}"#]);
}

async fn as_a_guest(user: Option<User>) -> Negotiation {
    let claims = user.as_ref().map(|user| user.claims().get_all("role").collect::<Vec<_>>().join("+"));
    Negotiation::user(user.as_ref().map_or("guest", User::id)).claim("roles", claims.unwrap_or_default())
}

#[tokio::test]
async fn the_app_gets_the_user_of_its_own_token() {
    let hub = |hub: Hub| hub.on_negotiate(as_a_guest).method("Who", async |ctx: Context| who(&ctx));
    let app = App::start_with(hub, |server| server.embedded()).await;
    let token = app.handle.token("ann").claim("role", "cook").claim("role", "admin").sign().unwrap();
    let mut ann = Browser::connect(&app, &format!("/test?access_token={token}"), Json).await;
    assert!(ann.call("Who", "[]").await[0].contains(r#""result":["ann","cook+admin"]"#));
    let mut guest = Browser::connect(&app, "/test?access_token=rubbish", Json).await;
    assert!(guest.call("Who", "[]").await[0].contains(r#""result":["guest",""]"#));
}

fn who(ctx: &Context) -> (Option<String>, Option<String>) {
    (ctx.user_id().map(str::to_owned), ctx.claims().get("roles").map(str::to_owned))
}

#[tokio::test]
async fn a_malformed_origin_is_an_error() {
    let server = Server::new().access_key(harness::KEY).embedded().allow_origin("app.example");
    assert!(matches!(server.into_router::<()>(), Err(BuildError::Origin { origin, .. }) if origin == "app.example"));
}

#[tokio::test]
async fn a_missing_runtime_is_an_error() {
    let build = || Server::new().access_key(harness::KEY).embedded().into_router::<()>().map(drop);
    let outside = std::thread::spawn(build).join().unwrap();
    assert!(matches!(outside, Err(BuildError::NoRuntime)));
    build().unwrap();
}

#[tokio::test]
async fn the_admin_port_of_an_embedded_node_serves_the_observer_and_requires_the_token() {
    const TOKEN: &str = "the-admin-token-of-this-app";
    let mut app = App::start_with(|hub| hub, |server| server.embedded().admin("127.0.0.1:0").admin_token(TOKEN)).await;
    let admin = app.handle.admin_addr().unwrap();
    let _ann = Browser::new(&app, Json).await;
    app.event().await;
    let get = async |path: &str, more: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\n{more}connection: close\r\n\r\n");
        let mut socket = tokio::net::TcpStream::connect(admin).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/readyz", "").await.ends_with("ready\n"));
    assert!(get("/api/clients", "").await.contains("\"hub\":\"test\""));
    let watch = "/api/trace?method=Add&seconds=1&payloads=shown";
    assert!(get(watch, "").await.starts_with("HTTP/1.1 401"));
    let traced = get(watch, &format!("authorization: Bearer {TOKEN}\r\n")).await;
    assert!(traced.starts_with("HTTP/1.1 200") && traced.contains("\"event\":\"end\""), "{traced}");
    app.handle.shutdown().await;
    assert!(tokio::net::TcpStream::connect(admin).await.is_err(), "it ends with the node");
}

#[tokio::test]
async fn an_admin_port_that_can_not_be_opened_is_an_error() {
    let server = || Server::new().access_key(harness::KEY);
    let error = |server: Server| server.into_router::<()>().map(drop).unwrap_err();
    assert!(matches!(error(server().admin("127.0.0.1:0")), BuildError::AdminWithoutNode));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(error(server().embedded().admin(taken.local_addr().unwrap())), BuildError::Admin(_)));
    let short = error(server().embedded().admin("127.0.0.1:0").admin_token("short"));
    assert!(short.to_string().contains("16"), "{short}");
}
