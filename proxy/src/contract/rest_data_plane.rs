//! REST data plane: effects of each operation on this node and other nodes, and the responses.

use std::time::Duration;

use ::http::Request;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::task::spawn_local;
use tokio::time::{Instant, advance};
use trunkline_protocol::access_token::{self, AccessTokenError};
use trunkline_protocol::dial_in::{sign_rest_token, sign_rest_token_for};
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{ClientCompletion, ServiceMessage, UserGroupChange};
use trunkline_protocol::token::ConnectionToken;

use super::app::AppLink;
use super::client::{Client, JSON_HANDSHAKE};
use super::fixture::{Fixture, KEY, NodeSettings, paused, settings, token_of};
use super::fleet_nodes::{FleetNode, linked, nodes, peers, until};
use super::http::{exchange, negotiate};
use super::inbound_links::dial_in_nodes;
use super::scene::{LinkedApp, chat};
use super::webhook_server::WebhookServer;
use crate::edge::rest::Rest;
use crate::features::admission::ServiceAudience;
use crate::features::inspection::Inspector;
use crate::fleet::Fleet;
use crate::ground::auth::{AccessSettings, TokenPolicy, VerifyingKey};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{RestSettings, Settings, WebhookSettings};
use crate::ground::net::connector::MemoryNetwork;

/// Back end that sends requests to a node.
#[derive(Clone)]
pub(super) struct BackEnd {
    rest: Rest,
    token: String,
}

#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) missing: String,
    pub(super) body: Value,
    pub(super) text: String,
}

impl BackEnd {
    pub(super) fn of(fixture: &Fixture, fleet: Fleet) -> Self {
        let token = sign_rest_token(&AccessKey::new(KEY).unwrap(), None, unix_seconds() + 60);
        Self { rest: Rest::new(fixture.shared.clone(), fleet), token }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, Body::from(body.to_owned())).await
    }

    async fn ask_with(&self, method: &str, path: &str, body: Body) -> Answer {
        self.ask_by(method, path, body, &[]).await
    }

    /// Sends a request with these headers.
    pub(super) async fn ask_as(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask_by(method, path, Body::from(body.to_owned()), headers).await
    }

    async fn ask_by(&self, method: &str, path: &str, body: Body, headers: &[(&str, &str)]) -> Answer {
        let uri = if path.starts_with("/api") { path.to_owned() } else { format!("/api/hubs/chat{path}") };
        let request =
            Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {}", self.token));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = self.rest.answer_request(request.body(body).unwrap(), None, "https://node.example").await;
        let header =
            |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let (status, code, missing) =
            (answer.status().as_u16(), header("x-ms-error-code"), header("x-trunkline-missing-nodes"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status, code, missing, body: serde_json::from_slice(&body).unwrap_or_default(), text }
    }

    pub(super) async fn status(&self, method: &str, path: &str) -> u16 {
        self.ask(method, path, "").await.status
    }

    /// Sends a text; returns the number of clients that received it.
    async fn publish(&self, path: &str, text: &str) -> u64 {
        let call = json!({ "target": "Say", "arguments": [text] }).to_string();
        let answer = self.ask("POST", path, &call).await;
        assert_eq!((answer.status, &*answer.missing), (202, ""), "{answer:?}");
        answer.body["clients"].as_u64().unwrap()
    }
}

pub(super) fn alone(fixture: &Fixture) -> BackEnd {
    BackEnd::of(fixture, fixture.fleet())
}

pub(super) fn served() -> Settings {
    Settings { rest: RestSettings { on_client_ports: true, ..RestSettings::default() }, ..settings() }
}

fn said(text: &str) -> String {
    format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[\"{text}\"]}}")
}

/// Starts a node with these settings and the hub `chat`, and a back end of it.
pub(super) async fn start(settings: impl Into<NodeSettings>, shards: u16) -> (BackEnd, LinkedApp) {
    let (fixture, link) = Fixture::with(settings, shards).with_chat().await;
    (alone(&fixture), link)
}

#[tokio::test(crate = "paused")]
async fn sends_reach_all_a_group_a_user_or_a_connection_and_count_their_clients() {
    let (back_end, mut link) = start(served(), 2).await;
    let (mut ann, mut ben) = (link.client_of("ann").await, link.client_of("ben").await);
    link.join(&ann.id, "red & blue/å?").await;
    link.join(&ben.id, "red & blue/å?").await;
    assert_eq!(back_end.publish("/:send", "all").await, 2);
    assert_eq!(back_end.publish(&format!("/:send?excluded={}&excluded=x", ann.id), "but ann").await, 1);
    let group = "/groups/red%20%26%20blue%2F%C3%A5%3F/:send";
    assert_eq!(back_end.publish(group, "group").await, 2);
    assert_eq!(back_end.publish(&format!("{group}?excluded={}", ben.id), "group but ben").await, 1);
    assert_eq!(back_end.publish("/users/ann/:send", "ann").await, 1);
    assert_eq!(back_end.publish("/users/nobody/:send", "nobody").await, 0);
    assert_eq!(back_end.publish(&format!("/connections/{}/:send", ben.id), "ben").await, 1);
    assert_eq!(back_end.publish("/connections/nobody/:send", "nobody").await, 0);
    assert_eq!(back_end.publish("/api/v1/hubs/chat", "first version").await, 2);
    for text in ["all", "group", "group but ben", "ann", "first version"] {
        assert_eq!(ann.text().await, said(text));
    }
    for text in ["all", "but ann", "group", "ben", "first version"] {
        assert_eq!(ben.text().await, said(text));
    }
}

#[tokio::test(crate = "paused")]
async fn a_connection_that_closes_with_its_token_gets_another_time_for_that() {
    let hub = chat(|hub| hub.close_on_token_expiry = true);
    let (fixture, mut link) = Fixture::with(served(), 2).with_app(hub).await;
    let (mut ann, ben) = (link.client_of("ann").await, link.client_of("ben").await);
    let (mut free, back_end) = (link.client().await, alone(&fixture));
    let refresh = async |id: &str, at: &str| {
        let body = format!("{{\"expireTime\":\"{at}\"}}");
        back_end.ask("POST", &format!("/connections/{id}/:refresh"), &body).await
    };
    assert_eq!(refresh(&ben.id, "2100-01-01T00:00:00Z").await.status, 204);
    // This connection has no token, so nothing expires.
    assert_eq!(refresh(&free.id, "2020-01-01T00:00:00Z").await.status, 204);
    assert_eq!(refresh(&ann.id, "2020-01-01T00:00:00Z").await.status, 204);
    assert!(ann.text().await.starts_with("{\"type\":7"));
    assert_eq!(back_end.publish("/:send", "who is there?").await, 2);
    assert_eq!(free.text().await, said("who is there?"));
    let absent = refresh("nobody", "2100-01-01T00:00:00Z").await;
    assert_eq!((absent.status, &*absent.code), (404, "Warning.Connection.NotExisted"));
    assert_eq!(refresh(&ben.id, "soon").await.status, 400);
}

#[tokio::test(crate = "paused")]
async fn a_back_end_asks_for_the_claims_of_a_connection_and_gives_it_newer_ones() {
    let (back_end, mut link) = start(served(), 2).await;
    let query = format!("&access_token={}", token_of("ann"));
    let (_, token) = negotiate(&link.fixture, "/chat", &query).await;
    let ann = Client::connect_over(link.fixture.dial(), &mut link, &format!("/chat?id={token}{query}")).await;
    let ask = async |path: &str, body: Value| back_end.ask("POST", path, &body.to_string()).await;
    let claims = async || ask("/connections/claims", json!({ "connectionToken": token })).await.body["claims"].clone();
    assert!(claims().await.to_string().contains("ann"));
    let newer = json!([{ "type": "sub", "value": "ann" }, { "type": "role", "value": "cook" }]);
    let end = "2100-01-01T00:00:00Z";
    let answer =
        ask("/connections/:refreshAuth", json!({ "connectionToken": token, "expireTime": end, "claims": newer }));
    assert_eq!(answer.await.body["claims"], newer);
    let ServiceMessage::UpdateConnectionClaims(update) = link.next().await else { panic!("the claims come") };
    assert_eq!(update.connection_id.as_ref(), ann.id);
    // Without claims in the request, the existing claims are kept.
    let longer = json!({ "connectionToken": token, "expireTime": "9999-12-31T23:59:59.9999999Z" });
    assert_eq!(ask("/connections/:refreshAuth", longer).await.status, 200);
    assert_eq!(claims().await, newer);
    let other = json!([{ "type": "sub", "value": "ben" }]);
    for (body, status, code) in [
        (json!({ "connectionToken": token, "expireTime": end, "claims": other }), 403, "ConnectionUserMismatch"),
        (json!({ "connectionToken": "x", "expireTime": end }), 404, "ConnectionNotFound"),
        (json!({ "connectionToken": token }), 400, "Error.Request.Invalid"),
        (json!({ "expireTime": end }), 400, "Error.Request.Invalid"),
    ] {
        let answer = ask("/connections/:refreshAuth", body).await;
        assert_eq!((answer.status, &*answer.code), (status, code), "{answer:?}");
    }
    assert_eq!(ask("/connections/claims", json!({ "connectionToken": ann.id })).await.status, 404);
}

#[tokio::test(crate = "paused")]
async fn groups_are_changed_and_asked_about_and_their_members_listed_in_pages() {
    let (back_end, mut link) = start(served(), 2).await;
    let mut clients = link.clients_of(["ann", "ann", "ben"]).await;
    let gone = ("HEAD", "/groups/red");
    assert_eq!(back_end.ask(gone.0, gone.1, "").await.code, "Warning.Group.NotExisted");
    for client in &clients {
        assert_eq!(back_end.status("PUT", &format!("/groups/red/connections/{}", client.id)).await, 200);
    }
    assert_eq!(back_end.status("GET", "/groups/red").await, 200);
    let absent = back_end.ask("PUT", "/groups/red/connections/nobody", "").await;
    assert_eq!((absent.status, &*absent.code), (404, "Error.Connection.NotExisted"));
    let (mut listed, mut path) = (Vec::new(), "/groups/red/connections?maxpagesize=2&api-version=1".to_owned());
    loop {
        let page = back_end.ask("GET", &path, "").await.body;
        let members = page["value"].as_array().unwrap();
        assert!(members.len() <= 2);
        listed.extend(members.iter().map(|member| (member["connectionId"].clone(), member["userId"].clone())));
        match page["nextLink"].as_str() {
            Some(next) => path = next.strip_prefix("https://node.example").unwrap().to_owned(),
            None => break,
        }
    }
    let mut expected: Vec<_> =
        clients.iter().zip(["ann", "ann", "ben"]).map(|(client, user)| (json!(client.id), json!(user))).collect();
    listed.sort_by_key(|one| format!("{one:?}"));
    expected.sort_by_key(|one| format!("{one:?}"));
    assert_eq!(listed, expected);
    let top = back_end.ask("GET", "/groups/red/connections?maxpagesize=2&top=2", "").await.body;
    assert_eq!((top["value"].as_array().unwrap().len(), &top["nextLink"]), (2, &Value::Null));
    let refused = back_end.ask("GET", "/groups/red/connections?continuationToken=x.0.0", "").await;
    assert_eq!((refused.status, &refused.body["target"]), (400, &json!("continuationToken")));
    assert_eq!(back_end.status("DELETE", &format!("/groups/red/connections/{}", clients[0].id)).await, 200);
    assert_eq!(back_end.status("DELETE", &format!("/connections/{}/groups", clients[1].id)).await, 200);
    assert_eq!(back_end.publish("/groups/red/:send", "to ben").await, 1);
    assert_eq!(clients[2].text().await, said("to ben"));
}

#[tokio::test(crate = "paused")]
async fn changes_are_answered_by_202_in_the_first_version_and_confirmed_in_the_newer_one() {
    let (back_end, mut link) = start(served(), 2).await;
    let ann = link.client_of("ann").await;
    let (join, alias) = (format!("/groups/red/connections/{}", ann.id), format!("/connections/{}/groups/red", ann.id));
    for (prefix, column) in [("/api/v1/hubs/chat", 0), ("/api/hubs/chat", 1)] {
        for (method, path, statuses) in [
            ("PUT", &*join, [202, 200]),
            ("DELETE", &join, [202, 200]),
            ("PUT", &alias, [202, 404]),
            ("DELETE", &alias, [202, 404]),
            ("PUT", "/groups/red/users/ann", [202, 200]),
            ("DELETE", "/groups/red/users/ann", [202, 204]),
            ("PUT", "/users/ann/groups/red", [202, 200]),
            ("DELETE", "/users/ann/groups/red", [202, 204]),
            ("DELETE", "/users/ann/groups", [202, 204]),
            ("DELETE", &format!("/connections/{}/groups", ann.id), [202, 200]),
        ] {
            let status = back_end.status(method, &format!("{prefix}{path}")).await;
            assert_eq!(status, statuses[column], "{method} {prefix}{path}");
        }
    }
    assert_eq!(back_end.status("PUT", "/api/v1/hubs/chat/groups/red/connections/nobody").await, 404);
    assert_eq!(back_end.status("GET", "/api/v1/hubs/chat/users/ann").await, 200);
    assert_eq!(back_end.status("DELETE", &format!("/api/v1/hubs/chat/connections/{}", ann.id)).await, 202);
}

#[tokio::test(crate = "paused")]
async fn odd_but_clear_requests_are_taken_and_names_have_the_limit_of_joins() {
    let (back_end, mut link) = start(served(), 1).await;
    let mut ann = link.client_of("ann").await;
    let marked = format!("\u{feff}{}", r#"{"target":"Said","arguments":["marked"]}"#);
    assert_eq!(back_end.ask("POST", "/users/ann/:send", &marked).await.status, 202);
    assert!(ann.text().await.contains("marked"));
    assert_eq!([back_end.status("HEAD", "/users/ann/").await, back_end.status("HEAD", "/users/ann").await], [200; 2]);
    let (fitting, long) = ("%C3%BC".repeat(512), "%C3%BC".repeat(513));
    for (method, tail) in [("POST", ":send"), ("GET", "connections"), ("PUT", "users/ann")] {
        let call = if method == "POST" { &*marked } else { "" };
        let status = back_end.ask(method, &format!("/groups/{fitting}/{tail}"), call).await.status;
        assert!([200, 202].contains(&status), "{tail}: {status}");
        let refused = back_end.ask(method, &format!("/groups/{long}/{tail}"), call).await;
        assert_eq!(refused.status, 400, "{tail}");
    }
    for size in ["0", "1001", "-1", "many", ""] {
        let path = format!("/groups/red/connections?maxpagesize={size}");
        assert_eq!(back_end.status("GET", &path).await, 400, "{size:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_user_is_in_a_group_for_its_time_with_connections_that_come_later() {
    let (back_end, mut link) = start(served(), 2).await;
    let (blue, now) = ("/users/ann/groups/blue", "/users/ann/groups/now?ttl=0");
    assert_eq!(back_end.ask("HEAD", blue, "").await.code, "Info.User.NotInGroup");
    assert_eq!(back_end.status("PUT", &format!("{blue}?ttl=60")).await, 200);
    assert_eq!(back_end.status("PUT", now).await, 200);
    assert_eq!((back_end.status("HEAD", blue).await, back_end.status("HEAD", now).await), (200, 404));
    let mut ann = link.client_of("ann").await;
    let _ben = link.client_of("ben").await;
    assert_eq!(back_end.publish("/groups/blue/:send", "hello").await, 1);
    assert_eq!(ann.text().await, said("hello"));
    assert_eq!(back_end.status("PUT", now).await, 200);
    assert_eq!((back_end.publish("/groups/now/:send", "now").await, link.fixture.stores.user_groups.len()), (1, 1));
    advance(Duration::from_secs(62)).await;
    // sleep: virtual time, for a shard to remove expired memberships
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((back_end.publish("/groups/blue/:send", "late").await, back_end.status("GET", blue).await), (0, 404));
    assert_eq!(back_end.status("PUT", blue).await, 200);
    assert_eq!(back_end.status("DELETE", "/users/ann/groups").await, 204);
    assert_eq!((back_end.publish("/groups/blue/:send", "gone").await, link.fixture.stores.user_groups.len()), (0, 0));
    assert_eq!(back_end.status("DELETE", "/users/nobody/groups/blue").await, 204);
}

#[tokio::test(crate = "paused")]
async fn a_membership_that_is_renewed_as_it_ends_is_kept_by_the_connections_that_are_there() {
    let (back_end, mut link) = start(served(), 2).await;
    let _ann = link.client_of("ann").await;
    assert_eq!(back_end.status("PUT", "/users/ann/groups/blue").await, 200);
    let groups = &link.fixture.stores.user_groups;
    // The membership has expired, and is renewed before a shard is notified.
    groups.join("chat", "ann", "blue", 0).unwrap();
    link.fixture.shared.expire_user_groups();
    assert_eq!(groups.len(), 0);
    groups.join("chat", "ann", "blue", 60).unwrap();
    assert_eq!(back_end.publish("/groups/blue/:send", "still here").await, 1);
    groups.join("chat", "ann", "blue", 0).unwrap();
    link.fixture.shared.expire_user_groups();
    assert_eq!(back_end.publish("/groups/blue/:send", "gone").await, 0);
}

#[tokio::test(crate = "paused")]
async fn beyond_the_limit_connections_that_are_there_join_and_the_caller_is_told_that_later_ones_will_not() {
    let rest = RestSettings { user_groups_max: 1, ..served().rest };
    let (back_end, mut link) = start(Settings { rest, ..settings() }, 2).await;
    let mut ann = link.client_of("ann").await;
    assert_eq!(back_end.status("PUT", "/users/zoe/groups/red").await, 200);
    let full = back_end.ask("PUT", "/users/ann/groups/red", "").await;
    assert_eq!((full.status, &*full.code), (409, "Error.Request.Refused"));
    assert!(full.body["message"].as_str().unwrap().contains("--rest-user-groups-max"), "{full:?}");
    assert_eq!((back_end.publish("/groups/red/:send", "red").await, ann.text().await), (1, said("red")));
    let (user_id, group, ttl_s) = ("ann".into(), Some("blue".into()), Some(60));
    link.send(ServiceMessage::UserJoinGroup(UserGroupChange { user_id, group, ack_id: 0, ttl_s })).await;
    ann.fence(&link).await;
    assert_eq!(back_end.publish("/groups/blue/:send", "blue").await, 1);
    assert_eq!((link.fixture.stores.user_groups.len(), link.fixture.shared.reports.memberships_refused.get()), (1, 2));
}

#[tokio::test(crate = "paused")]
async fn connections_are_closed_one_by_one_or_many_with_a_reason() {
    let (back_end, mut link) = start(served(), 2).await;
    let mut clients = link.clients_of(["ann", "ben", "cat", "dan"]).await;
    let path = format!("/connections/{}", clients[0].id);
    assert_eq!(back_end.status("HEAD", &path).await, 200);
    assert_eq!(back_end.status("DELETE", &format!("{path}?reason=time%20to%20go")).await, 200);
    let closed = clients[0].text().await;
    assert!(closed.contains("\"type\":7") && closed.contains("time to go"), "{closed}");
    let gone = back_end.ask("HEAD", &path, "").await;
    assert_eq!((gone.status, &*gone.code), (404, "Warning.Connection.NotExisted"));
    assert_eq!(back_end.status("DELETE", &path).await, 404);
    assert_eq!(back_end.status("POST", "/users/ben/:closeConnections").await, 204);
    assert_eq!(back_end.status("HEAD", "/users/ben").await, 404);
    let spared = format!("/:closeConnections?excluded={}", clients[3].id);
    assert_eq!(back_end.status("POST", &spared).await, 204);
    assert_eq!((back_end.status("HEAD", "/users/cat").await, back_end.status("HEAD", "/users/dan").await), (404, 200));
    assert_eq!(back_end.status("POST", "/groups/none/:closeConnections").await, 204);
}

/// Sends a client's result for an invocation received by an app server.
async fn answer_invocation(link: &mut AppLink, completion: &'static str) {
    let ServiceMessage::ClientInvocation(told) = link.next().await else { panic!("the app is not told") };
    let payload = completion.replace("ID", &told.invocation_id).into();
    let completion = ClientCompletion {
        invocation_id: told.invocation_id,
        connection_id: told.connection_id,
        caller_server_id: told.caller_server_id,
        protocol: "json".into(),
        payload,
    };
    link.send(ServiceMessage::ClientCompletion(completion)).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_is_invoked_and_its_result_is_the_answer() {
    let (back_end, mut link) = start(served(), 1).await;
    let mut ann = link.client_of("ann").await;
    for (completion, status, expected) in [
        (
            "{\"type\":3,\"invocationId\":\"ID\",\"result\":{\"is\":7}}\u{1e}",
            200,
            json!({ "result": { "is": 7 }, "protocol": "json" }),
        ),
        ("{\"type\":3,\"invocationId\":\"ID\"}\u{1e}", 200, json!({ "result": null, "protocol": "json" })),
        ("{\"type\":3,\"invocationId\":\"ID\",\"error\":\"not now\"}\u{1e}", 502, json!("not now")),
        ("garbage", 502, json!("the client's completion can't be read")),
    ] {
        let (reply_to, path) = (back_end.clone(), format!("/connections/{}/:invoke", ann.id));
        let asking =
            spawn_local(async move { reply_to.ask("POST", &path, "{\"target\":\"Say\",\"arguments\":[\"?\"]}").await });
        let asked: Value = serde_json::from_str(&ann.text().await).unwrap();
        assert_eq!((&asked["target"], &asked["arguments"]), (&json!("Say"), &json!(["?"])));
        answer_invocation(&mut link, completion).await;
        let answer = asking.await.unwrap();
        let told = if status == 200 { answer.body } else { answer.body["message"].clone() };
        assert_eq!((answer.status, told), (status, expected));
    }
    let nobody = back_end.ask("POST", "/connections/nobody/:invoke", "{\"target\":\"Say\",\"arguments\":[]}").await;
    assert_eq!(nobody.status, 404, "{nobody:?}");
    let begun = Instant::now();
    let silent = back_end
        .ask("POST", &format!("/connections/{}/:invoke", ann.id), "{\"target\":\"Say\",\"arguments\":[]}")
        .await;
    assert_eq!((silent.status, begun.elapsed().as_secs()), (504, 30));
}

#[tokio::test(crate = "paused")]
async fn items_and_the_end_of_a_stream_reach_its_client_and_the_call_is_over() {
    let network = MemoryNetwork::default();
    let webhooks = WebhookSettings {
        rules: vec!["chat=http://app.example:5000/{event}".parse().unwrap()],
        ..WebhookSettings::DEFAULT
    };
    let fixture =
        Fixture::at("http://node.example", &network, Settings { webhooks, accepts_dial_in: true, ..served() });
    let mut server = WebhookServer::listen(&network, "http://app.example:5000");
    let mut ann = Client::upgrade(&fixture, "/chat").await.unwrap();
    ann.send(JSON_HANDSHAKE).await;
    assert_eq!(ann.text().await, "{}");
    let connected = server.next().await;
    let id = connected.header("x-asrs-connection-id").to_owned();
    connected.answer(200, "");
    let back_end = alone(&fixture);
    let path = |stream: &str, verb: &str| format!("/connections/{id}/streams/{stream}/:{verb}");
    let (send, complete) = (|stream: &str| path(stream, "send"), |stream: &str| path(stream, "complete"));
    let (first, second, ended) = (send("s1"), format!("{}?completed=true", send("s1")), complete("s2"));
    let (wrong, why) = (format!("{}?completed=maybe", send("s1")), format!("{ended}?reason=no%20more"));
    for id in ["s1", "s2"] {
        ann.send(&format!("{{\"type\":4,\"invocationId\":\"{id}\",\"target\":\"Count\",\"arguments\":[]}}\u{1e}"))
            .await;
        server.next().await.answer(202, "");
    }
    for (path, body, expected) in [
        (&first, "{\"n\":1}", vec!["{\"type\":2,\"invocationId\":\"s1\",\"item\":{\"n\":1}}"]),
        (&second, "2", vec!["{\"type\":2,\"invocationId\":\"s1\",\"item\":2}", "{\"type\":3,\"invocationId\":\"s1\"}"]),
        (&why, "", vec!["{\"type\":3,\"invocationId\":\"s2\",\"error\":\"no more\"}"]),
    ] {
        let answer = back_end.ask("POST", path, body).await;
        assert_eq!((answer.status, &answer.body["clients"]), (202, &json!(1)), "{answer:?}");
        for text in expected {
            assert_eq!(ann.text().await, text);
        }
    }
    let (shard, place) = (&fixture.shared.shards()[0], fixture.shared.routes.find(&id).unwrap());
    let ann_id = id.clone();
    let pending = shard
        .inspect(move |state| Inspector::at_shard(state).details(place.slot, &ann_id).map(|ann| ann.pending_calls));
    assert_eq!(pending.await, Some(Some(0)), "the calls are over");
    for (path, body, text) in [(&first, "", "not a stream item"), (&wrong, "1", "true or false")] {
        let answer = back_end.ask("POST", path, body).await;
        assert!(answer.status == 400 && answer.body["message"].as_str().unwrap().contains(text), "{answer:?}");
    }
    let nobody = back_end.ask("POST", "/connections/nobody/streams/1/:complete", "").await;
    assert_eq!((nobody.status, &nobody.body["clients"]), (202, &json!(0)));
}

#[tokio::test(crate = "paused")]
async fn commands_are_executed_one_after_the_other_for_the_clients_of_a_filter() {
    let (back_end, mut link) = start(served(), 2).await;
    let (mut ann, mut ben) = (link.client_of("ann").await, link.client_of("ben").await);
    let execute = async |filter: &str, commands: Value| {
        let filter = form_urlencoded::byte_serialize(filter.as_bytes()).collect::<String>();
        back_end.ask("POST", &format!("/:execute?filter={filter}"), &commands.to_string()).await
    };
    let say = |text: &str| json!({ "type": "SendMessage", "target": "Say", "arguments": [text] });
    let answer = execute("userId eq 'ann'", json!([{ "type": "JoinGroup", "group": "red" }, say("joined")])).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(ann.text().await, said("joined"));
    let to_group = execute("'red' in groups", json!([say("red")])).await;
    assert_eq!((to_group.status, execute("", json!([say("all")])).await.status), (202, 202));
    for text in ["red", "all"] {
        assert_eq!(ann.text().await, said(text));
    }
    assert_eq!(ben.text().await, said("all"));
    let only = format!("connectionId eq '{}'", ann.id);
    let answer = execute(&only, json!([{ "type": "LeaveGroup", "group": "red" }, say("left")])).await;
    assert_eq!((answer.status, ann.text().await), (202, said("left")));
    assert_eq!(back_end.status("HEAD", "/groups/red").await, 404);
    // An invalid command prevents all others.
    for (filter, commands, text) in [
        ("userId eq 'ben'", json!([say("x"), { "type": "Dance" }]), "wrong command 2"),
        ("startswith(userId)", json!([say("x")]), "wrong at byte 17: expected a comma"),
        (&*vec!["contains(userId,'a')"; 33].join(" or "), json!([say("x")]), "more than 32 functions"),
    ] {
        let answer = execute(filter, commands).await;
        assert!(answer.status == 400 && answer.body["message"].as_str().unwrap().contains(text), "{answer:?}");
    }
    let nobody = execute("connectionId eq 'nobody'", json!([{ "type": "JoinGroup", "group": "red" }])).await;
    assert_eq!((nobody.status, &*nobody.code), (404, "Error.Connection.NotExisted"));
    let bye = json!([{ "type": "CloseConnection", "reason": "maintenance" }]);
    assert_eq!(execute("userId eq 'ben'", bye).await.status, 202);
    assert!(ben.text().await.contains("maintenance"), "and nothing before it");
}

#[tokio::test(crate = "paused")]
async fn a_filter_with_operators_selects_clients_for_all_commands() {
    let (back_end, mut link) = start(served(), 2).await;
    let [mut ann, mut anton, mut ben] = link.clients_of(["ann", "anton", "ben"]).await;
    let execute = async |filter: &str, commands: Value| {
        let filter = form_urlencoded::byte_serialize(filter.as_bytes()).collect::<String>();
        back_end.ask("POST", &format!("/:execute?filter={filter}"), &commands.to_string()).await.status
    };
    let say = |text: &str| json!([{ "type": "SendMessage", "target": "Say", "arguments": [text] }]);
    let change = |kind: &str| json!([{ "type": kind, "group": "red" }]);
    // The message after an unmatched command proves that the client received nothing from that command.
    let steps = [
        ("startswith(userId, 'an')", change("JoinGroup")),
        ("'red' in groups and userId ne 'ann'", say("one")),
        ("not (userId in ('ann', 'anton'))", say("two")),
        ("'red' in groups or userId eq 'ben'", say("three")),
        ("'red' in groups", change("LeaveGroup")),
        ("", change("JoinGroup")),
        ("endswith(userId, 'n') and 'red' in groups", say("four")),
        ("userId eq null", say("nobody")),
        ("contains(userId, 'to')", json!([{ "type": "CloseConnection", "reason": "done" }])),
        ("connectionId ne null", say("last")),
    ];
    for (filter, commands) in steps {
        assert_eq!(execute(filter, commands).await, 202, "{filter}");
    }
    for text in ["three", "four", "last"] {
        assert_eq!(ann.text().await, said(text));
    }
    for text in ["one", "three", "four"] {
        assert_eq!(anton.text().await, said(text));
    }
    assert!(anton.text().await.contains("done"));
    for text in ["two", "three", "four", "last"] {
        assert_eq!(ben.text().await, said(text));
    }
}

#[tokio::test(crate = "paused")]
async fn the_refusal_of_a_token_says_why() {
    const APP_KEY: &str = "the key of one app of several";
    const USER_KEY: &str = "the secret of tokens of users";
    let app_keys = vec![format!("shop={APP_KEY}").parse().unwrap()];
    let tokens = TokenPolicy { keys: vec![VerifyingKey::from_secret(USER_KEY).unwrap()], ..TokenPolicy::default() };
    let fixture = Fixture::with((served(), AccessSettings { app_keys, tokens, ..AccessSettings::default() }), 1);
    let back_end = alone(&fixture);
    let now_s = unix_seconds();
    let refused = async |token: String| {
        let answer = BackEnd { token, ..back_end.clone() }.ask("POST", "/:send", "{\"target\":\"Say\"}").await;
        assert_eq!(answer.status, 401, "{answer:?}");
        answer.body["message"].as_str().unwrap().to_owned()
    };
    let key = |text: &str| AccessKey::new(text).unwrap();
    let early = json!({ "aud": "http://a/api/", "nbf": now_s + 900, "exp": now_s + 999 });
    let early = encode(&Header::default(), &early, &EncodingKey::from_secret(KEY.as_bytes())).unwrap();
    for (token, words) in [
        (sign_rest_token(&AccessKey::random(), None, now_s + 60), "no key of this node has signed it"),
        (sign_rest_token(&key(APP_KEY), None, now_s + 60), "signed with the key of app shop, which does not open"),
        (access_token::sign(&key(USER_KEY), "ann", &[], now_s + 60), "it is the token of a user"),
        (sign_rest_token(&key(KEY), None, now_s - 400), "it has expired 40"),
        (sign_rest_token(&key(KEY), Some("other"), now_s + 60), "/api/hubs/other/\" instead of https://HOST/api/"),
        (early, "it begins in "),
    ] {
        let reason = refused(token).await;
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_host_that_is_demanded_of_the_audience_is_named_in_the_refusal() {
    let rest = RestSettings { audience_hosts: vec!["signalr.example".into()], ..served().rest };
    let fixture = Fixture::with(Settings { rest, ..settings() }, 1);
    let mut back_end = alone(&fixture);
    let refused = back_end.ask("POST", "/:send", "{\"target\":\"Say\",\"arguments\":[]}").await;
    assert_eq!(refused.status, 401);
    assert!(
        refused.body["message"].as_str().unwrap().contains("host signalr.example (--rest-audience)"),
        "{refused:?}"
    );
    let key = AccessKey::new(KEY).unwrap();
    back_end.token = sign_rest_token_for(&key, "signalr.example", None, unix_seconds() + 60);
    let known = back_end.ask("POST", "/:send", "{\"target\":\"Say\",\"arguments\":[]}").await;
    assert_eq!((known.status, &*known.code), (404, "Error.Hub.NotExisted"));
}

#[tokio::test(crate = "paused")]
async fn a_request_without_a_good_token_or_beyond_a_limit_is_refused_by_name() {
    let rest = RestSettings { body_max_bytes: 1024, requests_max: 1.try_into().unwrap(), ..RestSettings::default() };
    let (back_end, mut link) = start(Settings { rest, ..settings() }, 1).await;
    let _ann = link.client_of("ann").await;
    let hub = AccessKey::new(KEY).unwrap();
    for (token, status) in [
        (sign_rest_token(&hub, Some("chat"), unix_seconds() + 60), 202),
        (sign_rest_token(&hub, Some("news"), unix_seconds() + 60), 401),
        (sign_rest_token(&hub, None, unix_seconds() - 3600), 401),
        (sign_rest_token(&AccessKey::random(), None, unix_seconds() + 60), 401),
        (token_of("ann"), 401),
        ("x".repeat(20_000), 401),
    ] {
        let stranger = BackEnd { rest: back_end.rest.clone(), token };
        assert_eq!(stranger.ask("POST", "/:send", "{\"target\":\"Say\",\"arguments\":[]}").await.status, status);
    }
    let large = back_end.ask("POST", "/:send", &"x".repeat(2000)).await;
    assert_eq!(large.status, 413);
    assert!(large.body["message"].as_str().unwrap().contains("--rest-body-max-bytes"), "{large:?}");
    let wrong = back_end.ask("POST", "/:send", "{}").await;
    assert_eq!((wrong.status, &wrong.body["target"]), (400, &json!("target")));
    // A request waiting for its body takes the only permit.
    let waiting = back_end.clone();
    let asking = spawn_local(async move { waiting.ask_with("POST", "/:send", Body::from_stream(never())).await });
    tokio::task::yield_now().await;
    let busy = back_end.ask("HEAD", "/users/ann", "").await;
    assert_eq!((busy.status, &*busy.code), (503, "Error.Node.Busy"));
    assert_eq!(back_end.status("HEAD", "/api/health").await, 200);
    assert_eq!((asking.await.unwrap().status, back_end.status("HEAD", "/users/ann").await), (408, 200));
}

#[tokio::test(crate = "paused")]
async fn a_token_of_one_hub_opens_no_other_and_makes_no_token_for_one() {
    let (back_end, link) = start(Settings { accepts_dial_in: true, ..served() }, 1).await;
    let of_chat = BackEnd {
        token: sign_rest_token(&AccessKey::new(KEY).unwrap(), Some("chat"), unix_seconds() + 60),
        ..back_end.clone()
    };
    assert_eq!(of_chat.status("HEAD", "/users/ann").await, 404);
    for path in [
        "/api/hubs/chat%2Fadmin/:send",
        "/api/hubs/chat/:send?application=admin",
        "/api/hubs/chat%2F%26hub=admin/:generateToken?userId=root",
    ] {
        assert_eq!(of_chat.ask("POST", path, "{\"target\":\"Say\",\"arguments\":[]}").await.status, 401, "{path}");
    }
    let made = back_end.ask("POST", "/api/hubs/a%26hub=admin/:generateToken?userId=root", "").await.body;
    assert_eq!(made["url"], "https://node.example/client/?hub=a%26hub%3Dadmin");
    let verify = |hub: &str| {
        link.fixture.admission.service_verifier.verify(made["token"].as_str().unwrap(), ServiceAudience::Client, hub)
    };
    assert_eq!(verify("a&hub=admin").unwrap().0.id.as_deref(), Some("root"));
    assert!(verify("admin").is_err() && verify("a").is_err());
}

#[tokio::test(crate = "paused")]
async fn a_generated_token_is_good_at_its_hub_alone_and_signed_with_the_key_of_its_caller() {
    const APP_KEY: &str = "the key of one app of several";
    let app_keys = vec![format!("chat={APP_KEY}").parse().unwrap()];
    let tokens = TokenPolicy { is_required: true, audiences: vec!["ours".into()], ..TokenPolicy::default() };
    let fixture = Fixture::with((served(), AccessSettings { app_keys, tokens, ..AccessSettings::default() }), 1);
    let mut app = fixture.app("app-1", vec![HubManifest::new("chat", "/chat"), HubManifest::new("admin", "/admin")]);
    let _links = [app.link().await, app.link().await];
    let back_end = alone(&fixture);
    for key in [KEY, APP_KEY] {
        let key = AccessKey::new(key).unwrap();
        let caller = |hub| {
            let token = sign_rest_token(&key, hub, unix_seconds() + 60);
            BackEnd { token, ..back_end.clone() }
        };
        let made = caller(Some("chat")).ask("POST", "/:generateToken?userId=ann", "").await;
        let token = made.body["token"].as_str().unwrap_or_else(|| panic!("{made:?}"));
        let keys = AccessKeys::new(vec![key.clone()]).unwrap();
        assert_eq!(access_token::verify(token, &keys, unix_seconds()), Err(AccessTokenError::Audience), "its signer");
        let enter = async |hub: &str| Client::upgrade(&fixture, &format!("{hub}?access_token={token}")).await.err();
        assert_eq!([enter("/chat").await, enter("/admin").await], [None, Some(401)]);
        let at_admin = caller(None).status("HEAD", "/api/hubs/admin/users/ann").await;
        assert_eq!(at_admin, if key.expose() == KEY { 404 } else { 401 });
    }
}

#[tokio::test(crate = "paused")]
async fn the_key_of_an_app_finds_no_hub_of_others_by_its_path() {
    const APP_KEY: &str = "the key of one app of several";
    let app_keys = vec![format!("shop={APP_KEY}").parse().unwrap()];
    let fixture = Fixture::with((served(), AccessSettings { app_keys, ..AccessSettings::default() }), 1);
    let mut link = fixture.server_with("app-1", HubManifest::new("chat", "/shop_admin/chat")).await;
    let mut ann =
        Client::connect(&fixture, &mut link, &format!("/shop_admin/chat?access_token={}", token_of("ann"))).await;
    let path = "/api/hubs/shop_admin%2Fchat/:send";
    let say = async |key: &str, text: &str| {
        let token = sign_rest_token(&AccessKey::new(key).unwrap(), Some("shop_admin/chat"), unix_seconds() + 60);
        let call = json!({ "target": "Say", "arguments": [text] }).to_string();
        BackEnd { token, ..alone(&fixture) }.ask("POST", path, &call).await.body["clients"].as_u64()
    };
    assert_ne!(say(APP_KEY, "of the shop").await, Some(1));
    assert_eq!(say(KEY, "of the fleet").await, Some(1));
    assert_eq!(ann.text().await, said("of the fleet"));
}

#[tokio::test(crate = "paused")]
async fn a_body_that_stops_or_has_no_end_is_refused_and_takes_no_place() {
    let rest = RestSettings { body_max_bytes: 1024, requests_max: 1.try_into().unwrap(), ..RestSettings::default() };
    let (back_end, _link) = start(Settings { rest, ..settings() }, 1).await;
    let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(b"{\"target\""));
    let begun = Instant::now();
    let stopping = Body::from_stream(stream::iter([chunk()]).chain(stream::pending()));
    let late = back_end.ask_with("POST", "/:send", stopping).await;
    assert_eq!((late.status, &*late.code, begun.elapsed().as_secs()), (408, "Error.Request.Timeout", 30));
    let endless = back_end.ask_with("POST", "/:send", Body::from_stream(stream::repeat_with(chunk))).await;
    assert_eq!(endless.status, 413);
    assert!(endless.body["message"].as_str().unwrap().contains("--rest-body-max-bytes"), "{endless:?}");
    let broken = stream::iter([chunk(), Err(std::io::Error::other("reset"))]);
    let broken = back_end.ask_with("POST", "/:send", Body::from_stream(broken)).await;
    assert_eq!((broken.status, &broken.body["target"]), (400, &json!("body")));
    assert_eq!(back_end.status("HEAD", "/users/ann").await, 404);
}

#[tokio::test(crate = "paused")]
async fn bodies_of_one_hub_that_never_come_keep_no_caller_of_another_hub_out() {
    let fixture = Fixture::with(served(), 1);
    let hubs = ["chat", "shop"].map(|name| HubManifest::new(name, &format!("/{name}")));
    let _link = fixture.app("app-1", hubs.to_vec()).link().await;
    let back_end = alone(&fixture);
    let until = unix_seconds() + 60;
    let of_chat = sign_rest_token(&AccessKey::new(KEY).unwrap(), Some("chat"), until);
    let hostile = BackEnd { token: of_chat, ..back_end.clone() };
    let most = fixture.shared.settings.rest.requests_max.get();
    let asking: Vec<_> = (0..most)
        .map(|_| {
            let hostile = hostile.clone();
            spawn_local(async move { hostile.ask_with("POST", "/:send", Body::from_stream(never())).await })
        })
        .collect();
    // Each yield lets some of the other requests start.
    for _ in 0..most {
        tokio::task::yield_now().await;
    }
    assert_eq!(hostile.status("HEAD", "/users/ann").await, 503, "it has no place for another one of its own");
    for _ in 0..3 {
        assert_eq!(back_end.status("HEAD", "/api/hubs/shop/users/ann").await, 404);
    }
    assert_eq!(fixture.shared.reports.rest_counters.displaced.get(), 1, "the place that was freed is used again");
    asking.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(crate = "paused")]
async fn calls_that_wait_for_their_clients_hold_no_place_of_short_requests_and_are_bounded_by_key() {
    const APP_KEY: &str = "the key of one app of several";
    let rest = RestSettings { requests_max: 2.try_into().unwrap(), ..served().rest };
    let app_keys = vec![format!("chat={APP_KEY}").parse().unwrap()];
    let (back_end, mut link) =
        start((Settings { rest, ..settings() }, AccessSettings { app_keys, ..AccessSettings::default() }), 1).await;
    let (mut ann, of_fleet) = (link.client_of("ann").await, back_end);
    let of_chat = sign_rest_token(&AccessKey::new(APP_KEY).unwrap(), Some("chat"), unix_seconds() + 60);
    let of_app = BackEnd { token: of_chat, ..of_fleet.clone() };
    let path = format!("/connections/{}/:invoke", ann.id);
    let call = |caller: &BackEnd| {
        let (caller, path) = (caller.clone(), path.clone());
        spawn_local(async move { caller.ask("POST", &path, "{\"target\":\"Say\",\"arguments\":[]}").await })
    };
    let mut calls = vec![call(&of_app), call(&of_app)];
    ann.text().await;
    ann.text().await;
    for caller in [&of_app, &of_fleet] {
        assert_eq!(caller.status("HEAD", "/users/ann").await, 200);
    }
    let third = call(&of_app).await.unwrap();
    assert_eq!((third.status, &*third.code), (503, "Error.Node.Busy"));
    let text = "2 pending client results by the key of app chat, which is the most for one key";
    assert!(third.body["message"].as_str().unwrap().contains(text), "{third:?}");
    calls.push(call(&of_fleet));
    ann.text().await;
    for _ in &calls {
        answer_invocation(&mut link, "{\"type\":3,\"invocationId\":\"ID\",\"result\":7}\u{1e}").await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    let again = call(&of_app);
    ann.text().await;
    answer_invocation(&mut link, "{\"type\":3,\"invocationId\":\"ID\"}\u{1e}").await;
    assert_eq!(again.await.unwrap().status, 200);
}

fn never() -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    stream::pending()
}

#[tokio::test(crate = "paused")]
async fn any_node_of_a_fleet_answers_and_names_the_nodes_without_an_answer() {
    let (network, mut nodes) = nodes(3).await;
    let mut clients = Vec::new();
    for node in &mut nodes {
        clients.push(node.link.client_of("ann").await);
    }
    linked(&nodes).await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    assert_eq!(back_end.publish("/:send", "all").await, 3);
    let third = format!("/groups/red/connections/{}", clients[2].id);
    assert_eq!(back_end.status("PUT", &third).await, 200);
    assert_eq!(
        (back_end.publish("/groups/red/:send", "red").await, back_end.status("HEAD", "/groups/red").await),
        (1, 200)
    );
    assert_eq!(back_end.status("PUT", "/users/zoe/groups/later").await, 200);
    let node = &mut nodes[1];
    let mut zoe = node.link.client_of("zoe").await;
    assert_eq!(back_end.status("DELETE", &format!("/connections/{}?reason=bye", clients[1].id)).await, 200);
    // A node that joins later receives all group memberships.
    nodes.push(FleetNode::start(&network, 4, peers(&[1])).await);
    linked(&nodes).await;
    let node = &mut nodes[3];
    let mut other_zoe = node.link.client_of("zoe").await;
    linked(&nodes).await;
    assert_eq!(back_end.publish("/groups/later/:send", "later").await, 2);
    assert_eq!((zoe.text().await, other_zoe.text().await), (said("later"), said("later")));
    for (place, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text().await, said("all"), "{place}");
    }
    assert_eq!(clients[2].text().await, said("red"));
    assert!(clients[1].text().await.contains("bye"));
    // Delivery to clients of the third node is unknown, and is reported as such.
    nodes[2].cut(true);
    let partly = back_end.ask("POST", "/:send", "{\"target\":\"Say\",\"arguments\":[\"partly\"]}").await;
    assert_eq!((partly.status, &*partly.missing, &partly.body["missing"]), (202, "n3", &json!(["n3"])));
    assert_eq!(clients[0].text().await, said("partly"));
    assert_eq!(zoe.text().await, said("partly"));
    let unknown = back_end.ask("HEAD", "/connections/nobody", "").await;
    assert_eq!((unknown.status, &*unknown.code), (503, "Error.Fleet.Incomplete"));
    assert!(unknown.body["message"].as_str().unwrap().contains("n3"), "{unknown:?}");
    let partly = back_end.ask("HEAD", "/connections/nobody?partial=true", "").await;
    assert_eq!((partly.status, &*partly.code, &*partly.missing), (404, "Warning.Connection.NotExisted", "n3"));
    assert_eq!(back_end.status("GET", "/groups/red/connections").await, 503);
    let partly = back_end.ask("GET", "/groups/red/connections?partial=TRUE", "").await;
    assert_eq!((partly.status, &*partly.missing, &partly.body["value"]), (200, "n3", &json!([])));
    assert_eq!(back_end.status("GET", "/groups/red/connections?partial=1").await, 400);
}

#[tokio::test(crate = "paused")]
async fn a_draining_node_serves_back_ends_until_it_leaves_and_negotiates_for_another_node() {
    let (_network, mut nodes) = nodes(2).await;
    let mut clients = Vec::new();
    for node in &mut nodes {
        clients.push(node.link.client_of("ann").await);
    }
    linked(&nodes).await;
    let shared = nodes[0].fixture.shared.clone();
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    shared.refuse_clients();
    assert_eq!(back_end.publish("/:send", "all").await, 2);
    for client in &mut clients {
        assert_eq!(client.text().await, said("all"));
    }
    let ask = async || exchange(&nodes[0].fixture, "POST", "/chat/negotiate?negotiateVersion=1", "").await;
    let (status, body) = ask().await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let token = ConnectionToken::open(answer["connectionToken"].as_str().unwrap(), &shared.settings.keys).unwrap();
    assert_eq!(token.boot, nodes[1].fixture.shared.boot, "the other node owns the connection");
    shared.end_requests();
    let refused = back_end.ask("POST", "/:send", "{\"target\":\"Say\",\"arguments\":[]}").await;
    assert_eq!((refused.status, &*refused.code), (503, "Error.Node.Stopping"));
    nodes[1].cut(true);
    until(Duration::from_secs(60), "the other one is gone", || !shared.other_nodes().are_ready()).await;
    assert_eq!(ask().await.0, 503, "no other node accepts clients");
}

#[tokio::test(crate = "paused")]
async fn a_client_of_a_hub_that_only_another_node_has_is_invoked() {
    let (_network, nodes) = nodes(2).await;
    let mut link = nodes[1].fixture.server_with("app-news", HubManifest::new("news", "/news")).await;
    let mut ann = Client::connect(&nodes[1].fixture, &mut link, "/news").await;
    linked(&nodes).await;
    let (back_end, path) = (
        BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone()),
        format!("/api/hubs/news/connections/{}/:invoke", ann.id),
    );
    let asking = spawn_local(async move { back_end.ask("POST", &path, "{\"target\":\"Say\",\"arguments\":[]}").await });
    assert!(ann.text().await.contains("Say"));
    answer_invocation(&mut link, "{\"type\":3,\"invocationId\":\"ID\",\"result\":7}\u{1e}").await;
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &answer.body["result"]), (200, &json!(7)));
}

#[tokio::test(crate = "paused")]
async fn a_membership_that_one_node_of_a_fleet_does_not_keep_is_refused() {
    let network = MemoryNetwork::default();
    let rest = RestSettings { user_groups_max: 0, ..RestSettings::default() };
    let mut nodes = vec![
        FleetNode::start(&network, 1, peers(&[1, 2])).await,
        FleetNode::start(&network, 2, Settings { rest, ..peers(&[1, 2]) }).await,
    ];
    let _app = nodes[0].fixture.server_with("app-news", HubManifest::new("news", "/news")).await;
    linked(&nodes).await;
    let node = &mut nodes[0];
    let _ann = node.link.client_of("ann").await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    // The second node does not have the hub `news`.
    for path in ["/users/ann/groups/red", "/api/hubs/news/users/ann/groups/red"] {
        let refused = back_end.ask("PUT", path, "").await;
        assert_eq!((refused.status, &*refused.code), (409, "Error.Request.Refused"), "{path}");
    }
    assert_eq!(nodes[1].fixture.shared.reports.memberships_refused.get(), 2);
}

#[tokio::test(crate = "paused")]
async fn a_new_node_learns_more_memberships_than_a_link_holds_and_what_changes_meanwhile() {
    const COUNT: usize = 6_500;
    let network = MemoryNetwork::default();
    let mut nodes = vec![FleetNode::start(&network, 1, peers(&[1, 2])).await];
    let (kept, user) = (nodes[0].fixture.stores.user_groups.clone(), |number: usize| format!("{number:0>1000}"));
    (0..COUNT).for_each(|number| kept.join("chat", &user(number), "red", 3_600).unwrap());
    nodes.push(FleetNode::start(&network, 2, peers(&[1, 2])).await);
    let copy = nodes[1].fixture.stores.user_groups.clone();
    until(Duration::from_secs(5), "the copy has begun", || copy.len() > 0).await;
    assert!(copy.len() < COUNT / 2, "it is under way");
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    for number in (0..COUNT).step_by(500) {
        let path = format!("/users/{}/groups/red", user(number));
        assert_eq!(back_end.status("DELETE", &path).await, 204);
    }
    linked(&nodes).await;
    until(Duration::from_secs(20), "all are there", || copy.len() == kept.len()).await;
    assert_eq!(kept.len(), COUNT - COUNT / 500);
    let is_left = |number: usize| number.is_multiple_of(500);
    assert!(
        (0..COUNT)
            .all(|number| nodes[1].fixture.shared.user_groups.contain("chat", &user(number), "red") != is_left(number))
    );
}

#[tokio::test(crate = "paused")]
async fn a_membership_that_ends_while_nodes_do_not_see_each_other_ends_everywhere() {
    let (_network, mut nodes) = nodes(2).await;
    let node = &mut nodes[1];
    let _zoe = node.link.client_of("zoe").await;
    linked(&nodes).await;
    let back_ends: Vec<_> = nodes.iter().map(|node| BackEnd::of(&node.fixture, node.fleet.clone())).collect();
    let red = "/users/zoe/groups/red";
    assert_eq!(back_ends[0].status("PUT", red).await, 200);
    assert_eq!(back_ends[1].publish("/groups/red/:send", "in").await, 1);
    nodes.iter().for_each(|node| node.cut(true));
    // sleep: longer than links survive without sockets
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(back_ends[0].status("DELETE", red).await, 204);
    nodes.iter().for_each(|node| node.cut(false));
    linked(&nodes).await;
    assert!(nodes.iter().all(|node| node.fixture.stores.user_groups.len() == 0));
    assert_eq!(back_ends[1].publish("/groups/red/:send", "out").await, 0);
}

#[tokio::test(crate = "paused")]
async fn an_unknown_hub_counts_as_a_dial_in_hub_while_a_node_is_late() {
    let (_network, nodes) = dial_in_nodes(2).await;
    nodes.iter().for_each(|node| node.cut(true));
    // sleep: longer than a node's reports about its clients are valid
    tokio::time::sleep(Duration::from_secs(20)).await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    back_end.ask("PUT", "/api/hubs/lobby/users/ann/groups/red", "").await;
    let kept = &nodes[0].fixture.shared.user_groups;
    assert_eq!((kept.groups_of("?hub=lobby", "ann").len(), kept.groups_of("lobby", "ann").len()), (1, 0));
}
