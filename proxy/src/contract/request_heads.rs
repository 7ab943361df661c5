//! Ambiguous request heads: heads that an app server could parse differently are refused, with the statuses of nginx
//! and Envoy.

use std::fmt::Write;

use ::http::{Request, StatusCode, Version};
use axum::body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline_protocol::manifest::HubManifest;

use super::client::Client;
use super::fixture::{Fixture, paused, settings};
use super::http::exchange;
use super::scene::LinkedApp;
use crate::edge::frontend::HEADERS_MAX;
use crate::ground::config::{OriginPattern, Settings, TrustedHeader, TrustedHeaders, TrustedNetworks};

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";

const NEGOTIATE: &str = "/chat/negotiate?negotiateVersion=1";

async fn served(settings: Settings) -> (Fixture, LinkedApp) {
    Fixture::with(settings, 1).with_chat().await
}

/// Settings of a node that trusts the test clients as load balancers, with these headers.
fn behind(believed: &[TrustedHeader]) -> Settings {
    let trusted = TrustedNetworks::parse(["192.0.2.0/24"]).unwrap();
    Settings { trusted, trusted_headers: TrustedHeaders::new(believed).unwrap(), ..settings() }
}

/// Sends bytes on a new connection; returns status and text of the only response.
async fn answer_to(fixture: &Fixture, request: &str) -> (u16, String) {
    let mut socket = fixture.dial();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{request:?}: {answer}");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, answer)
}

fn negotiate(headers: &str) -> String {
    format!("POST {NEGOTIATE} HTTP/1.1\r\nContent-Length: 0\r\n{headers}\r\n")
}

#[tokio::test(crate = "paused")]
async fn heads_that_can_be_read_in_two_ways_are_refused() {
    let (fixture, _link) = served(settings()).await;
    let host = "Host: node.example\r\n";
    let with = |more: &str| negotiate(&format!("{host}{more}\r\n"));
    let line = |line: &str| format!("{line} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n");
    let refused = [
        (400, negotiate("Host: evil.com/path?x=\r\n")),
        (400, negotiate("Host: user@evil.com\r\n")),
        (400, negotiate("Host:\r\n")),
        (400, negotiate("Host: a, b\r\n")),
        (400, negotiate("")),
        (400, with("Host: node.example")),
        (400, with("Authorization: Basic eA==\r\nAuthorization: Bearer x")),
        (400, with("Origin: http://node.example\r\nOrigin: http://evil.example")),
        (400, with("Connection: host")),
        (400, with("Connection: close, Cookie")),
        (400, with("Connection: Authorization")),
        (400, with("Connection: X-Forwarded-For")),
        (400, with(&format!("Connection: {}close", "a,".repeat(10_000)))),
        (400, line(&format!("POST http://evil.example{NEGOTIATE}"))),
        (400, line(&format!("POST http://user@node.example{NEGOTIATE}"))),
        (400, line(&format!("POST ftp://node.example{NEGOTIATE}"))),
        (400, line("POST node.example:80")),
        (400, line("GET *")),
        (405, line("TRACE /chat")),
        (405, line("TRACE /page")),
        (405, line("CONNECT node.example:80")),
        (501, format!("POST {NEGOTIATE} HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        (
            400,
            format!(
                "GET /chat HTTP/1.1\r\n{host}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx"
            ),
        ),
    ];
    let mut malformed = 0;
    for (status, request) in refused {
        let (got, answer) = answer_to(&fixture, &request).await;
        assert_eq!(got, status, "{request:?}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        malformed += 1;
        assert_eq!(fixture.shared.counters_of(0).malformed.get(), malformed, "{request:?}");
    }
    for sound in [
        with("Connection: close"),
        with("Connection: TE, close\r\nTE: trailers"),
        with("X_Forwarded_For: 6.6.6.6"),
        line(&format!("POST http://Node.Example{NEGOTIATE}")),
        format!("POST {NEGOTIATE} HTTP/1.0\r\n\r\n"),
    ] {
        assert_eq!(answer_to(&fixture, &sound).await.0, 200, "{sound:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_hub_refuses_a_query_of_more_than_256_pairs() {
    let (fixture, _link) = served(settings()).await;
    let with = async |pairs: usize| {
        let target = format!("{NEGOTIATE}{}", "&a".repeat(pairs - 1));
        exchange(&fixture, "POST", &target, "").await
    };
    assert_eq!(with(256).await.0, StatusCode::OK);
    let (status, text) = with(257).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("more than 256 pairs"), "{text}");
}

#[tokio::test(crate = "paused")]
async fn requests_of_http2_meet_the_same_checks() {
    let (fixture, _link) = served(settings()).await;
    let status = async |authority: &str, headers: &[(&str, &str)]| {
        let request = Request::post(format!("https://{authority}{NEGOTIATE}")).version(Version::HTTP_2);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        fixture.answer(request.body(Body::empty()).unwrap()).await.status().as_u16()
    };
    assert_eq!(status("node.example", &[]).await, 200);
    assert_eq!(status("node.example", &[("host", "node.example")]).await, 200);
    assert_eq!(status("node.example", &[("host", "evil.example")]).await, 400);
    assert_eq!(status("user@node.example", &[]).await, 400);
    assert_eq!(status("node.example", &[("content-length", "0"), ("content-length", "5")]).await, 400);
    assert_eq!(status("node.example", &[("x-own", "1"); HEADERS_MAX + 1]).await, 431);
}

#[tokio::test(crate = "paused")]
async fn a_head_that_would_be_too_large_with_what_a_node_adds_is_refused_first() {
    let (fixture, _link) = served(settings()).await;
    let with = |count: usize| {
        let mut headers = "Host: node.example\r\nConnection: close\r\n".to_owned();
        (0..count).for_each(|number| write!(headers, "X-{number}: 1\r\n").unwrap());
        negotiate(&headers)
    };
    // Host, Connection and Content-Length also count.
    assert_eq!(answer_to(&fixture, &with(HEADERS_MAX - 3)).await.0, 200);
    for count in [HEADERS_MAX - 2, 97] {
        let (status, answer) = answer_to(&fixture, &with(count)).await;
        assert_eq!(status, 431, "{count}");
        assert!(answer.contains("more than 90 headers"), "{answer}");
    }
    let long = format!("Host: node.example\r\nConnection: close\r\nX: {}\r\n", "x".repeat(32 * 1024));
    let (status, answer) = answer_to(&fixture, &negotiate(&long)).await;
    assert_eq!(status, 431);
    assert!(answer.contains("larger than 32768 bytes: see --head-max-bytes"), "{answer}");
}

#[tokio::test(crate = "paused")]
async fn headers_of_a_balancer_that_are_not_named_are_not_believed() {
    let request = |host: &str| {
        let headers = format!("X-Forwarded-Prefix: /public\r\nX-Forwarded-Host: {host}\r\nConnection: close\r\n");
        let path = format!("POST /public{NEGOTIATE} HTTP/1.1\r\nHost: node.example\r\n");
        format!("{path}{headers}Origin: http://chat.example\r\nContent-Length: 0\r\n\r\n")
    };
    let (fixture, _link) = served(behind(&[TrustedHeader::For, TrustedHeader::Proto])).await;
    assert_eq!(answer_to(&fixture, &request("chat.example")).await.0, 404);
    let named = [TrustedHeader::Prefix, TrustedHeader::Host];
    let (fixture, _link) = served(behind(&named)).await;
    let (status, answer) = answer_to(&fixture, &request("chat.example")).await;
    assert_eq!(status, 200);
    assert!(answer.contains("access-control-allow-credentials: true"), "{answer}");
    let (_, other) = answer_to(&fixture, &request("other.example")).await;
    assert!(!other.contains("access-control-allow-origin"), "{other}");
}

#[tokio::test(crate = "paused")]
async fn a_page_of_http_is_no_page_of_the_node_behind_tls() {
    let (fixture, _link) = served(settings()).await;
    let status = async |is_tls, origin: &str| {
        let request = Request::get("/chat")
            .header("host", "node.example")
            .header("origin", origin)
            .header("cookie", "session=1")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(Body::empty())
            .unwrap();
        fixture.answer_by(is_tls, request).await.status().as_u16()
    };
    assert_eq!(status(true, "http://node.example").await, 403);
    assert_eq!(status(true, "https://node.example").await, 101);
    // A proxy in front of a plain listener may terminate TLS.
    assert_eq!(status(false, "http://node.example").await, 101);
    assert_eq!(status(false, "https://node.example").await, 101);
    assert_eq!(status(false, "https://evil.example").await, 403);
}

#[tokio::test(crate = "paused")]
async fn an_upgrade_that_has_lost_a_part_is_refused_and_uses_no_token() {
    let (fixture, _link) = served(settings()).await;
    let (_, token) = super::http::negotiate(&fixture, "/chat", "").await;
    let answer = async |version: Version, headers: &[&str]| {
        let request = Request::get(format!("/chat?id={token}")).version(version).header("host", "node.example");
        let headers = headers.iter().filter_map(|header| header.split_once(": "));
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        let answer = fixture.answer(request.body(Body::empty()).unwrap()).await;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, headers, String::from_utf8(text.into()).unwrap())
    };
    let whole = ["connection: Upgrade", "upgrade: websocket", KEY, "sec-websocket-version: 13"];
    for (version, headers, lost) in [
        (Version::HTTP_10, whole, "HTTP/1.0"),
        (Version::HTTP_11, ["upgrade: websocket", KEY, "sec-websocket-version: 13", ""], "`Connection: Upgrade`"),
        (Version::HTTP_11, ["connection: Upgrade", KEY, "sec-websocket-version: 13", ""], "`Upgrade: websocket`"),
    ] {
        let (status, headers, text) = answer(version, &headers).await;
        assert_eq!((status, &headers["upgrade"]), (426, &"websocket".parse().unwrap()));
        assert!(text.contains(lost), "{text}");
    }
    let old = ["connection: Upgrade", "upgrade: websocket", KEY, "sec-websocket-version: 8"];
    let (status, headers, _) = answer(Version::HTTP_11, &old).await;
    assert_eq!((status, &headers["sec-websocket-version"]), (426, &"13".parse().unwrap()));
    assert_eq!(answer(Version::HTTP_11, &whole).await.0, 101, "the token is as good as before");
}

#[tokio::test(crate = "paused")]
async fn a_page_whose_host_was_changed_on_the_way_is_refused_at_negotiate_with_both() {
    let allow_origins = vec!["capacitor://localhost".parse().unwrap()];
    let (fixture, _link) = served(Settings { allow_origins, ..settings() }).await;
    for (origin, status) in [
        ("https://chat.example:8443", 403),
        ("null", 403),
        ("capacitor://localhost", 200),
        ("https://node.example", 200),
    ] {
        let (found, answer) = answer_to(
            &fixture,
            &negotiate(&format!("Host: node.example\r\nOrigin: {origin}\r\nConnection: close\r\n")),
        )
        .await;
        assert_eq!(found, status, "{origin}: {answer}");
        for named in [origin, "node.example", "$http_host", "--trust-headers", "--allow-origin"] {
            assert!(status == 200 || answer.contains(named), "{answer}");
        }
    }
}

#[tokio::test(crate = "paused")]
async fn a_page_reads_that_its_head_is_too_large() {
    let allow_origins = vec!["https://app.example".parse().unwrap()];
    let (fixture, _link) = served(Settings { allow_origins, ..settings() }).await;
    for (origin, is_shown) in [("https://app.example", true), ("https://evil.example", false)] {
        let request = Request::post(NEGOTIATE).header("host", "node.example").header("origin", origin);
        let request = (0..HEADERS_MAX).fold(request, |request, number| request.header(format!("x-{number}"), "1"));
        let answer = fixture.answer(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(answer.headers().contains_key("access-control-allow-origin"), is_shown, "{origin}");
    }
}

#[tokio::test(crate = "paused")]
async fn an_endpoint_chooses_a_sub_protocol_that_its_client_asks_for() {
    let sub_protocols = vec!["v1.chat".to_owned(), "v2.chat".to_owned()];
    let hub = HubManifest { sub_protocols, ..HubManifest::new("chat", "/chat") };
    let (fixture, _link) = Fixture::start().with_app(hub).await;
    for (asked, chosen) in [(Some("v3.chat, v2.chat"), Some("v2.chat")), (Some("v3.chat"), None), (None, None)] {
        let request = Request::get("/chat").header("host", "node.example").header("connection", "Upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let request = asked.into_iter().fold(request, |request, asked| request.header("sec-websocket-protocol", asked));
        let answer = fixture.answer(request.body(Body::empty()).unwrap()).await;
        let named = answer.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap());
        assert_eq!((answer.status().as_u16(), named), (101, chosen), "{asked:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn http2_without_tls_is_refused_by_a_frame_that_names_the_cause() {
    let (fixture, _link) = served(settings()).await;
    let mut socket = fixture.dial();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let (settings, go_away) = answer.split_at(9);
    assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
    assert_eq!((go_away[3], usize::from(go_away[2]) + 9), (7, go_away.len()), "GOAWAY of its length");
    assert_eq!(go_away[13..17], [0, 0, 0, 0xd], "HTTP_1_1_REQUIRED");
    assert!(std::str::from_utf8(&go_away[17..]).unwrap().contains("HTTP/1.1"));
    assert_eq!(fixture.shared.counters_of(0).malformed.get(), 1);
    // Also recognised when split into pieces.
    let mut socket = fixture.dial();
    for piece in [&b"PRI * HT"[..], b"TP/2.0\r\n\r\nSM\r\n\r\n"] {
        socket.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(socket.read_u32().await.unwrap(), 4, "SETTINGS");
}

#[tokio::test(crate = "paused")]
async fn the_path_of_a_hub_may_have_escapes() {
    let (fixture, mut link) = served(settings()).await;
    let (_, token) = super::http::negotiate(&fixture, "/ch%61t", "").await;
    let _client = Client::connect(&fixture, &mut link, &format!("/%63hat?id={token}")).await;
    assert_eq!(exchange(&fixture, "POST", "/chat/n%65gotiate?negotiateVersion=1", "").await.0, StatusCode::OK);
    assert_eq!(exchange(&fixture, "POST", "/chat%2Fnegotiate", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(exchange(&fixture, "GET", "/%2Etrunkline/manifest", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(crate = "paused")]
async fn preflights_allow_credentials_to_trusted_pages_only_and_vary_by_origin() {
    let allow_origins = vec![OriginPattern::Any, "https://app.example".parse().unwrap()];
    let (fixture, _link) = served(Settings { allow_origins, ..settings() }).await;
    for (origin, has_credentials) in [("https://app.example", true), ("https://evil.example", false), ("null", false)] {
        let request = Request::options(NEGOTIATE)
            .header("host", "node.example")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap();
        let answer = fixture.answer(request).await;
        let headers = answer.headers().clone();
        assert_eq!(headers.contains_key("access-control-allow-credentials"), has_credentials, "{origin}");
        let vary: Vec<_> = headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(vary.join(",").contains("origin"), "{headers:?}");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
