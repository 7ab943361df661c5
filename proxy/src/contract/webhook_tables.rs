//! Settings of single webhook hubs, from the tables of the configuration file.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;
use trunkline_protocol::access_token;
use trunkline_protocol::key::AccessKey;

use super::client::{Client, PING, Received};
use super::fixture::{Fixture, KEY, paused, settings, token_of, token_until};
use super::http::{exchange, negotiate};
use super::hub_message::call;
use super::rest_data_plane::BackEnd;
use super::webhook_server::WebhookServer;
use super::webhooks::{APP, connect, webhooks};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{GivenKeys, SecretSources, Settings, WebhookConnecting, WebhookSettings};
use crate::ground::net::connector::MemoryNetwork;
#[cfg(feature = "tls")]
use crate::ground::net::tls::ClientTls;
use crate::ground::routing::Ruleset;
use crate::node::key_reload::reload;
use crate::node::presence_keeper;
use crate::node::rule_set::RuleSet;

/// Starts a node with webhooks for the hubs `chat` and `board`, and with these rules.
fn start(flags: WebhookSettings, rules: &str) -> (Fixture, WebhookServer) {
    let network = MemoryNetwork::default();
    let template = "http://app.example:5000/{hub}/{category}/{event}";
    let webhooks = WebhookSettings {
        rules: webhooks(&[&format!("chat={template}"), &format!("board={template}")]).rules,
        ..flags
    };
    let rules = Arc::new(Ruleset::parse(rules).unwrap());
    let settings = Settings { webhooks, rules, has_upstreams: false, ..settings() };
    (Fixture::at("http://node.example", &network, settings), WebhookServer::listen(&network, APP))
}

fn rule_set(fixture: &Fixture) -> RuleSet {
    RuleSet::new(
        fixture.shared.clone(),
        fixture.admission.clone(),
        fixture.webhooks.clone(),
        Vec::new(),
        #[cfg(feature = "tls")]
        ClientTls::default(),
    )
}

fn apply(fixture: &Fixture, rules: &str) -> Result<(), String> {
    let rules = Ruleset::parse(rules).unwrap();
    rule_set(fixture).apply(&rules, &crate::ground::auth::AccessTables::default()).map_err(|error| error.to_string())
}

#[tokio::test(crate = "paused")]
async fn a_public_board_and_a_private_chat_share_a_node() {
    let flags =
        WebhookSettings { connecting: WebhookConnecting::Asked, has_presence: true, ..WebhookSettings::DEFAULT };
    let (fixture, mut server) = start(
        flags,
        "[webhooks.chat]\nrequire-authentication = true\nkeep-alive-interval = 5\n\
         [webhooks.board]\nconnect = false\npresence = false\nevents = []\ntransports = ['WebSockets']",
    );
    spawn_local(presence_keeper::run(fixture.shared.clone(), fixture.webhooks.clone(), fixture.fleet()));
    let mut reader = connect(&fixture, &format!("/board?access_token={}", token_of("ann"))).await;
    reader.send(&call("1", "Say")).await;
    let refused = reader.text().await;
    assert!(refused.contains("Methods of this hub can't be called"), "{refused}");
    reader.close().await;
    // sleep: nothing may come
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(server.waiting(), 0, "the board's back end is asked nothing");

    let asked = async |server: &mut WebhookServer| server.next_at("/chat/connections/connect").await.answer(204, "");
    let (anonymous, ()) = tokio::join!(Client::upgrade(&fixture, "/chat"), asked(&mut server));
    assert_eq!(anonymous.err(), Some(401));
    let target = format!("/chat?access_token={}", token_of("ann"));
    let (mut ann, ()) = tokio::join!(connect(&fixture, &target), asked(&mut server));
    server.next_at("/chat/users/online").await.answer(200, "");
    let begun = Instant::now();
    assert_eq!(ann.next().await, Received::Text(PING.into()));
    assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn settings_of_a_hub_are_replaced_by_a_reload_and_what_it_can_not_do_is_refused() {
    let (fixture, mut server) = start(WebhookSettings::DEFAULT, "[webhooks.\"*\"]\nrequire-authentication = true");
    assert_eq!(Client::upgrade(&fixture, "/chat").await.err(), Some(401));
    apply(&fixture, "[webhooks.chat]\nevents = ['messages']").unwrap();
    let mut client = connect(&fixture, "/chat").await;
    client.send(&call("1", "Say")).await;
    let said = server.next().await;
    assert_eq!(said.path(), "/chat/messages/Say", "`connected` is not sent");
    said.answer(200, "");
    for (rules, words) in [
        ("[webhooks.news]\nconnect = true", "[webhooks.news] is about no hub with a webhook"),
        ("[webhooks.chat]\nmessage-max-bytes = '17MiB'", "--message-max-bytes allows at most 16777216"),
        ("[webhooks.chat]\npresence = true", "this node was started without it"),
    ] {
        let problem = apply(&fixture, rules).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_is_closed_with_its_token_and_rest_moves_that_end_where_there_is_one() {
    let (fixture, mut server) = start(WebhookSettings::DEFAULT, "[webhooks.chat]\nclose-on-token-expiry = true");
    // Token expiry uses the system clock. This token has expired, but within the tolerated clock skew.
    let target = format!("/chat?access_token={}", token_until("ann", unix_seconds() - 1));
    let mut ann = connect(&fixture, &target).await;
    server.next().await.answer(200, "");
    assert!(ann.text().await.starts_with("{\"type\":7,\"allowReconnect\":true"));
    let back_end = BackEnd::of(&fixture, fixture.fleet());
    let refresh = async |server: &mut WebhookServer, target: &str| {
        let hub = target.trim_start_matches('/').split('?').next().unwrap().to_owned();
        let client = connect(&fixture, target).await;
        let connected = server.next_at(&format!("/{hub}/connections/connected")).await;
        let id = connected.header("x-asrs-connection-id").to_owned();
        connected.answer(200, "");
        let path = format!("/api/hubs/{hub}/connections/{id}/:refresh");
        let answer = back_end.ask("POST", &path, "{\"expireTime\":\"2100-01-01T00:00:00Z\"}").await;
        drop(client);
        (answer.status, answer.body["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refresh(&mut server, &format!("/chat?access_token={}", token_of("ben"))).await.0, 204);
    let (status, text) = refresh(&mut server, "/chat").await;
    assert!(status == 409 && text.contains("without an access token that expires"), "{status} {text}");
    let (status, text) = refresh(&mut server, &format!("/board?access_token={}", token_of("ben"))).await;
    assert!(status == 409 && text.contains("set close-on-token-expiry in [webhooks.board]"), "{status} {text}");
}

#[tokio::test(crate = "paused")]
async fn a_client_shows_a_newer_token_and_later_events_have_its_claims() {
    let (fixture, mut server) = start(WebhookSettings::DEFAULT, "[webhooks.chat]\nauthentication-refresh = true");
    let token = token_of("ann");
    let (_, id) = negotiate(&fixture, "/chat", &format!("&access_token={token}")).await;
    let mut client = connect(&fixture, &format!("/chat?id={id}&access_token={token}")).await;
    server.next().await.answer(200, "");
    let claims = [("role".to_owned(), "cook".to_owned())];
    let newer = access_token::sign(&AccessKey::new(KEY).unwrap(), "ann", &claims, unix_seconds() + 7200);
    let target = format!("/chat/refresh?id={id}&access_token={newer}");
    let (status, body) = exchange(&fixture, "POST", &target, "").await;
    assert_eq!(status, 200, "{body}");
    client.send(&call("1", "Say")).await;
    assert!(server.next().await.header("x-asrs-user-claims").contains("role: cook"));
}

#[tokio::test(crate = "paused")]
async fn a_client_and_its_back_end_learn_the_limit_that_a_message_exceeds() {
    let (fixture, mut server) = start(WebhookSettings::DEFAULT, "[webhooks.chat]\nmessage-max-bytes = 100");
    let mut client = connect(&fixture, "/chat").await;
    server.next().await.answer(200, "");
    client.send(&format!("{{\"type\":1,\"target\":\"{}\"}}\u{1e}", "x".repeat(200))).await;
    let close = client.text().await;
    assert!(
        close.contains("Connection closed with an error. The maximum message size of 100B was exceeded."),
        "{close}"
    );
    let end = server.next().await;
    assert!(end.text().contains("message-max-bytes in [webhooks.chat]"), "{}", end.text());
    assert!(!end.text().contains("Hub::"), "{}", end.text());
}

#[tokio::test(crate = "paused")]
async fn requests_have_the_headers_of_the_node_and_of_the_hub() {
    let path = std::env::temp_dir().join(format!("trunkline-header-file-{}", std::process::id()));
    std::fs::write(&path, "# Gateway.\nX-Gateway-Key: in a file\n").unwrap();
    let headers = GivenKeys { typed: vec!["X-Region: eu".parse().unwrap()], files: vec![path.clone()] };
    let flags = WebhookSettings { headers: headers.read_lines().unwrap(), ..WebhookSettings::DEFAULT };
    let (fixture, mut server) = start(flags, "[webhooks.chat]\nheaders = ['x-gateway-key: of the chat']");
    let mut seen = async |hub: &str| {
        let client = connect(&fixture, hub).await;
        let asked = server.next_at(&format!("{hub}/connections/connected")).await;
        let seen = ["x-region", "x-gateway-key"].map(|name| asked.header(name).to_owned());
        asked.answer(200, "");
        drop(client);
        seen
    };
    assert_eq!(seen("/board").await, ["eu", "in a file"]);
    assert_eq!(seen("/chat").await, ["eu", "of the chat"], "the hub's own replaces it");
    let sources = SecretSources { webhook_headers: headers, ..SecretSources::default() };
    let reload = || reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &sources);
    std::fs::write(&path, "X-Gateway-Key: another").unwrap();
    reload().unwrap();
    assert_eq!(seen("/board").await, ["eu", "another"]);
    std::fs::write(&path, "X-Gateway-Key: third\nX-ASRS-Hub: hush").unwrap();
    let problem = reload().unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(problem.contains("line 2: x-asrs-hub is set by the node") && !problem.contains("hush"), "{problem}");
    assert_eq!(seen("/board").await, ["eu", "another"]);
}
