//! Tests of authentication between proxy and app server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use trunkline::HubProtocol::Json;
use trunkline::{Hub, Negotiation, User};
use trunkline_protocol::access_token;
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::wire::{
    CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, LINK_PATH, MANIFEST_PATH, NEGOTIATE_PATH, REFUSAL_HEADER,
    USER_HEADER,
};

use crate::harness::{APP, App, KEY, ProxyLink, ScriptedClient};

async fn decide(user: Option<User>) -> Negotiation {
    match user {
        Some(user) => {
            Negotiation::user(user.id().to_uppercase()).claim("was", user.claims().get("role").unwrap_or("-"))
        }
        None => Negotiation::user("nobody"),
    }
}

async fn members_only(user: User) -> Negotiation {
    Negotiation::user(user.id())
}

async fn start(hub: fn(Hub) -> Hub) -> App {
    App::start_hub(hub).await
}

/// Negotiates for a client as a proxy that has verified this user.
async fn ask(app: &App, user: Option<&str>, authorization: &str) -> String {
    let user = user.map(|id| access_token::User {
        id: Some(id.into()),
        claims: vec![("role".into(), "cook".into())],
        ..Default::default()
    });
    let user = user.map(|user| user.to_header());
    let mut headers =
        vec![(CLIENT_URI_HEADER, "/test/negotiate?negotiateVersion=1"), (CLIENT_AUTHORIZATION_HEADER, authorization)];
    headers.extend(user.as_deref().map(|user| (USER_HEADER, user)));
    app.exchange("POST", &format!("{NEGOTIATE_PATH}?hub=test"), &headers, KEY).await
}

#[tokio::test]
async fn a_negotiate_handler_gets_the_user_whom_the_proxy_has_verified() {
    let app = start(|hub| hub.on_negotiate(decide)).await;
    let known = ask(&app, Some("ann"), "Bearer a token of an issuer that only proxies know").await;
    assert!(known.contains(r#""user":"ANN""#) && known.contains(r#"["was","cook"]"#), "{known}");
    // If the proxy refuses a token, there is no user, even if the app could verify the token.
    let own = format!("Bearer {}", app.handle.token("ann").sign().unwrap());
    assert!(ask(&app, None, &own).await.contains(r#""user":"nobody""#));
}

#[tokio::test]
async fn a_handler_with_the_user_extractor_refuses_anonymous_clients() {
    let app = start(|hub| hub.on_negotiate(members_only)).await;
    assert!(ask(&app, Some("ann"), "").await.contains(r#""user":"ann""#));
    let refusal = ask(&app, None, "").await;
    assert!(refusal.starts_with("HTTP/1.1 401") && refusal.contains("www-authenticate: Bearer\r\n"), "{refusal}");
    assert!(!refusal.contains(REFUSAL_HEADER), "the proxy is not refused");
}

#[tokio::test]
async fn only_a_proxy_of_the_fleet_can_name_the_user() {
    let app = start(|hub| hub.on_negotiate(decide)).await;
    let mallory = access_token::User { id: Some("mallory".into()), ..Default::default() }.to_header();
    let target = format!("{NEGOTIATE_PATH}?hub=test");
    let stranger = app.exchange("POST", &target, &[(USER_HEADER, &mallory)], "the key of another fleet").await;
    assert!(stranger.starts_with("HTTP/1.1 401"), "{stranger}");
    for (method, target) in [("POST", target.as_str()), ("GET", MANIFEST_PATH), ("GET", LINK_PATH)] {
        let answer = app.exchange_in_the_open(method, target, (USER_HEADER, &mallory)).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[tokio::test]
async fn refusals_of_the_sdk_are_marked() {
    let app = start(|hub| hub).await;
    let marked = |answer: &str, reason: &str| answer.contains(&format!("{REFUSAL_HEADER}: {reason}\r\n"));
    let stranger = app.exchange("GET", MANIFEST_PATH, &[], "the key of another fleet").await;
    assert!(stranger.starts_with("HTTP/1.1 401") && marked(&stranger, "access-key"), "{stranger}");
    let unknown = app.exchange("POST", &format!("{NEGOTIATE_PATH}?hub=nope"), &[], KEY).await;
    assert!(unknown.starts_with("HTTP/1.1 404") && marked(&unknown, "hub"), "{unknown}");
    let known = app.exchange("GET", MANIFEST_PATH, &[], KEY).await;
    assert!(known.starts_with("HTTP/1.1 200") && !known.contains(REFUSAL_HEADER), "{known}");
}

#[tokio::test]
async fn a_proxy_that_dialled_another_name_is_refused_with_the_reason() {
    let named = |name: &'static str| App::start_with(|hub| hub, move |server| server.dialled_as(name));
    let own = named("app").await.exchange("GET", MANIFEST_PATH, &[], KEY).await;
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");
    let other = named("shop").await.exchange("GET", MANIFEST_PATH, &[], KEY).await;
    assert!(other.starts_with("HTTP/1.1 421") && other.contains(&format!("{REFUSAL_HEADER}: name\r\n")), "{other}");
    assert!(other.contains("TRUNKLINE_DIALLED_AS"), "{other}");
}

/// Head of a request that opens a channel with the key, as an attacker on the network could record it.
async fn recorded_request() -> Vec<u8> {
    let (near, mut far) = tokio::io::duplex(4096);
    let (mut near, keys) = (Some(near), AccessKeys::new(vec![AccessKey::new(KEY).unwrap()]).unwrap());
    let dial = move || std::future::ready(Ok(near.take().unwrap()));
    let opening = tokio::spawn(async move { trunkline_channel::open_channel(dial, APP, &keys).await });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        far.read_buf(&mut head).await.unwrap();
    }
    opening.abort();
    head
}

#[tokio::test]
async fn a_recorded_request_for_a_channel_leads_nowhere() {
    let app = start(|hub| hub.on_negotiate(decide)).await;
    let head = recorded_request().await;
    let mut tcp = TcpStream::connect(app.address).await.unwrap();
    tcp.write_all(&head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        tcp.read_buf(&mut answer).await.unwrap();
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    // It has the form of a record, but cannot be sealed without the key.
    let mut forged = vec![0x82, 0x80 | 40, 0, 0, 0, 0];
    forged.extend([7; 40]);
    tcp.write_all(&forged).await.unwrap();
    answer.clear();
    // The connection may also end with a reset.
    drop(tcp.read_to_end(&mut answer).await);
    assert_eq!(answer, b"", "nothing was served");
}

/// Relays connections to an app server, and injects forged bytes. Returns the address to dial.
async fn carry(app: SocketAddr, mut forged: mpsc::Receiver<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut proxy, _) = listener.accept().await.unwrap();
        let mut app = TcpStream::connect(app).await.unwrap();
        let (mut up, mut down) = (vec![0; 4096], vec![0; 4096]);
        loop {
            let (is_up, read) = tokio::select! {
                Some(bytes) = forged.recv() => {
                    app.write_all(&bytes).await.unwrap();
                    continue;
                }
                read = proxy.read(&mut up) => (true, read.unwrap_or_default()),
                read = app.read(&mut down) => (false, read.unwrap_or_default()),
            };
            let written = if is_up { app.write_all(&up[..read]).await } else { proxy.write_all(&down[..read]).await };
            if read == 0 || written.is_err() {
                return;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_relay_of_a_link_can_not_open_a_client() {
    let mut app = App::start().await;
    let (put_in, forged) = mpsc::channel(1);
    let real = app.address;
    app.address = carry(real, forged).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    assert_eq!(app.event().await, "connected c1");
    assert!(link.call(&client, "Add", "[1,2]").await.contains("\"result\":3"));
    // A frame in plain text, as in a proxy's WebSocket message outside a channel.
    let mallory = ScriptedClient { id: "mallory", protocol: Json }.opening("").to_frame();
    let mut message = vec![0x82, 0x80 | u8::try_from(mallory.len()).unwrap(), 0, 0, 0, 0];
    message.extend(mallory);
    put_in.send(message).await.unwrap();
    link.closed().await;
    let event = app.event().await;
    assert!(event.starts_with("disconnected c1"), "{event}");
    app.no_event().await;
    app.address = real;
    ProxyLink::open(&app, "b", 0).await;
}
