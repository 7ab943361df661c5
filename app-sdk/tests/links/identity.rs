//! Identity between proxy and app server: whom a proxy has verified, and who it is that refuses a proxy.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline::{Hub, Negotiation, User};
use trunkline_protocol::access_token;
use trunkline_protocol::wire::{
    CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, MANIFEST_PATH, NEGOTIATE_PATH, REFUSAL_HEADER, USER_HEADER,
};

use crate::harness::{App, KEY, credential};

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
    App::start_with(hub, |server| server).await
}

/// Sends a request and returns the whole answer, in lower case.
async fn exchange(app: &App, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let mut tcp = TcpStream::connect(app.address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{headers}\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks about a client as a proxy does that has verified this user.
async fn ask(app: &App, user: Option<&str>, authorization: &str) -> String {
    let user = user.map(|id| access_token::User {
        id: Some(id.into()),
        claims: vec![("role".into(), "cook".into())],
        ..Default::default()
    });
    let user = user.map(|user| user.to_header());
    let credential = format!("Bearer {}", credential(KEY));
    let mut headers = vec![
        ("authorization", credential.as_str()),
        (CLIENT_URI_HEADER, "/test/negotiate?negotiateVersion=1"),
        (CLIENT_AUTHORIZATION_HEADER, authorization),
    ];
    headers.extend(user.as_deref().map(|user| (USER_HEADER, user)));
    exchange(app, "POST", &format!("{NEGOTIATE_PATH}?hub=test"), &headers).await
}

#[tokio::test]
async fn a_negotiate_handler_gets_the_user_whom_the_proxy_has_verified() {
    let app = start(|hub| hub.on_negotiate(decide)).await;
    let known = ask(&app, Some("ann"), "Bearer a token of an issuer that only proxies know").await;
    assert!(known.contains(r#""user":"ANN""#) && known.contains(r#"["was","cook"]"#), "{known}");
    // What the proxy refuses is no user, although the app could verify it.
    let own = format!("Bearer {}", app.handle.token("ann").sign().unwrap());
    assert!(ask(&app, None, &own).await.contains(r#""user":"nobody""#));
}

#[tokio::test]
async fn a_handler_that_needs_a_user_refuses_the_client_by_itself() {
    let app = start(|hub| hub.on_negotiate(members_only)).await;
    assert!(ask(&app, Some("ann"), "").await.contains(r#""user":"ann""#));
    let refusal = ask(&app, None, "").await;
    assert!(refusal.starts_with("HTTP/1.1 401") && refusal.contains("www-authenticate: Bearer\r\n"), "{refusal}");
    assert!(!refusal.contains(REFUSAL_HEADER), "the proxy is not refused");
}

#[tokio::test]
async fn only_a_proxy_of_the_fleet_says_who_a_client_is() {
    let app = start(|hub| hub.on_negotiate(decide)).await;
    let mallory = access_token::User { id: Some("mallory".into()), ..Default::default() }.to_header();
    let target = format!("{NEGOTIATE_PATH}?hub=test");
    let answer = exchange(&app, "POST", &target, &[(USER_HEADER, &mallory)]).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn refusals_of_the_sdk_are_marked() {
    let app = start(|hub| hub).await;
    let marked = |answer: &str, reason: &str| answer.contains(&format!("{REFUSAL_HEADER}: {reason}\r\n"));
    let stranger = exchange(&app, "GET", MANIFEST_PATH, &[]).await;
    assert!(stranger.starts_with("HTTP/1.1 401") && marked(&stranger, "access-key"), "{stranger}");
    let bearer = format!("Bearer {}", credential(KEY));
    let unknown = exchange(&app, "POST", &format!("{NEGOTIATE_PATH}?hub=nope"), &[("authorization", &bearer)]).await;
    assert!(unknown.starts_with("HTTP/1.1 404") && marked(&unknown, "hub"), "{unknown}");
    let known = exchange(&app, "GET", MANIFEST_PATH, &[("authorization", &bearer)]).await;
    assert!(known.starts_with("HTTP/1.1 200") && !known.contains(REFUSAL_HEADER), "{known}");
}
