//! Refused requests, and parts of requests that are not forwarded.

use ::http::StatusCode;
use http_body_util::BodyExt;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::HubManifest;

use super::client::JSON_HANDSHAKE;
use super::fixture::{Fixture, paused, settings, token_of, token_until};
use super::http::{HttpConnection, exchange, negotiate, request_with};
use crate::ground::auth::{AccessSettings, TokenPolicy};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{HostRules, Settings};

const NEGOTIATE: &str = "/chat/negotiate?negotiateVersion=1";

fn chat() -> Vec<HubManifest> {
    vec![HubManifest::new("chat", "/chat")]
}

/// Negotiates like a page from this host and returns the status.
async fn ask_for(fixture: &Fixture, host: &str) -> u16 {
    let request = request_with("POST", NEGOTIATE, &[("host", host), ("origin", &format!("http://{host}"))]);
    HttpConnection::open(fixture).await.exchange(request).await.0.as_u16()
}

#[tokio::test(crate = "paused")]
async fn a_node_with_the_development_key_answers_no_page_whose_name_was_made_to_lead_there() {
    let hosts = HostRules { named: Vec::new(), is_development: true };
    let (fixture, _link) = Fixture::with(Settings { is_development: true, hosts, ..settings() }, 1).with_chat().await;
    for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "app.localhost"] {
        assert_eq!(ask_for(&fixture, host).await, 200, "{host}");
    }
    for host in ["rebound.example", "rebound.example:8080", "localhost.evil.example"] {
        assert_eq!(ask_for(&fixture, host).await, 421, "{host}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_list_of_hosts_keeps_others_out_and_without_one_all_may_ask() {
    let hosts = HostRules { named: vec!["chat.example".parse().unwrap()], is_development: false };
    let (fixture, _link) = Fixture::with(Settings { hosts, ..settings() }, 1).with_chat().await;
    assert_eq!(ask_for(&fixture, "chat.example").await, 200);
    assert_eq!(ask_for(&fixture, "rebound.example").await, 421);
    let open = Fixture::start();
    let mut app = open.app("app-2", chat());
    let _link = app.link().await;
    assert_eq!(ask_for(&open, "rebound.example").await, 200);
}

#[tokio::test(crate = "paused")]
async fn the_cookie_of_an_admin_session_reaches_no_app_server() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let headers = [("accept", "text/event-stream"), ("cookie", "a=1; trunkline_admin_n1=secret; b=2")];
    let poll = request_with("GET", &format!("/chat?id={token}"), &headers);
    let mut connection = HttpConnection::open(&fixture).await;
    let mut events = connection.begin(poll).await;
    assert_eq!(events.status(), StatusCode::OK);
    exchange(&fixture, "POST", &format!("/chat?id={token}"), JSON_HANDSHAKE).await;
    let open = link.opening().await;
    let cookies: Vec<_> =
        open.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie")).map(|(_, all)| all).collect();
    assert_eq!(cookies, [&["a=1; b=2"]]);
    drop(events.frame().await);
}

#[tokio::test(crate = "paused")]
async fn a_token_without_a_user_is_not_sufficient_where_a_user_is_required() {
    let tokens = TokenPolicy { is_required: true, ..TokenPolicy::default() };
    let (fixture, _link) =
        Fixture::with((settings(), AccessSettings { tokens, ..AccessSettings::default() }), 1).with_chat().await;
    for (user, status) in [("ann", 200), ("", 401)] {
        let target = format!("{NEGOTIATE}&access_token={}", token_of(user));
        assert_eq!(exchange(&fixture, "POST", &target, "").await.0, status, "{user:?}");
    }
    let reason = fixture.shared.reports.refusals.reason(Cause::TokenRefused).unwrap();
    assert!(reason.contains("none of the claims nameid, sub") && reason.contains("--user-claim"), "{reason}");
}

#[tokio::test(crate = "paused")]
async fn operators_see_the_values_of_a_refused_token_and_its_holder_only_the_failed_check() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let target = format!("{NEGOTIATE}&access_token={}", token_until("ann", unix_seconds() - 600));
    let (status, text) = exchange(&fixture, "POST", &target, "").await;
    assert_eq!((status, &*text), (StatusCode::UNAUTHORIZED, "the access token is not valid: it has expired"));
    let reason = fixture.shared.reports.refusals.reason(Cause::TokenRefused).unwrap();
    assert!(reason.contains("it has expired 60") && reason.contains("clock"), "{reason}");
}
