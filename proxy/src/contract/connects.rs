//! Connecting: accepted and refused clients, and notifications to the app server.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::manifest::{Authentication, HubManifest, REMOTE_HEADER, TRANSPORT_HEADER, USER_ID_CLAIM};
use trunkline_protocol::wire::USER_HEADER;

use super::client::{Client, JSON_HANDSHAKE, Received};
use super::closes::cause_of;
use super::fixture::{Fixture, paused, settings, token_of};
use super::fleet_nodes::until;
use super::http::{HttpConnection, exchange, negotiate, request, request_with};
use super::hub_message::cast;
use super::scene::{chat, chat_and_news};
use crate::ground::auth::User;
use crate::ground::config::{FrontendLimits, Settings};
use crate::ground::metrics::Limit;

#[tokio::test(crate = "paused")]
async fn large_heads_of_open_connections_share_a_budget_and_small_ones_are_not_concerned() {
    let limits = FrontendLimits { heads_total_bytes: 10_000, ..FrontendLimits::default() };
    let (fixture, mut link) = Fixture::with(Settings { limits, ..settings() }, 1).with_chat().await;
    let large = format!("/chat?x={}", "x".repeat(6_000));
    // The head counts from the upgrade on; otherwise many clients with late handshakes would exceed the budget.
    let pending = Client::upgrade(&fixture, &large).await.unwrap();
    assert_eq!(Client::upgrade(&fixture, &large).await.err(), Some(431));
    pending.close().await;
    until(Duration::from_secs(60), "nothing is kept", || fixture.shared.limits.heads.kept_bytes() == 0).await;
    let client = Client::connect(&fixture, &mut link, &large).await;
    assert_eq!(Client::upgrade(&fixture, &large).await.err(), Some(431));
    assert_eq!(fixture.shared.counters_of(0).limit(Limit::HeadTotal).get(), 2);
    let _small = link.client().await;
    // Headers that only the node reads are not stored.
    let not_kept = ("x-trunkline-odd", &*"x".repeat(6_000));
    assert!(Client::upgrade_with(fixture.dial(), "/chat", &[not_kept]).await.is_ok());
    client.close().await;
    link.close().await;
    until(Duration::from_secs(60), "nothing is kept", || fixture.shared.limits.heads.kept_bytes() == 0).await;
    let _again = Client::connect(&fixture, &mut link, &large).await;
}

#[tokio::test(crate = "paused")]
async fn the_address_with_the_most_heads_makes_room_for_others_whether_its_clients_are_open_or_not() {
    let limits = FrontendLimits { heads_total_bytes: 40_000, ..FrontendLimits::default() };
    let (fixture, mut link) = Fixture::with(Settings { limits, ..settings() }, 1).with_chat().await;
    let large = format!("/chat?x={}", "x".repeat(6_000));
    let _open = Client::connect(&fixture, &mut link, &large).await;
    let mut pending = Vec::new();
    while let Ok(client) = Client::upgrade(&fixture, &large).await {
        pending.push(client);
    }
    assert_eq!(pending.len(), 5, "the own address makes no room");
    let dial_from = |last: u8| fixture.dial_from(([198, 51, 100, last], 7).into(), 64 * 1024);
    let mut others = Vec::new();
    for other in 1..=2 {
        others.push(Client::connect_over(dial_from(other), &mut link, &large).await);
        let end = pending.pop().unwrap().next().await;
        assert!(matches!(end, Received::End(_)), "{end:?} of the newest of the largest");
    }
    drop(pending);
    for other in others {
        other.close().await;
        link.close().await;
    }
    let kept = || fixture.shared.limits.heads.kept_bytes();
    until(Duration::from_secs(60), "all others are gone", || kept() < 10_000).await;
    let mut own = Vec::new();
    for _ in 0..5 {
        own.push(Client::connect(&fixture, &mut link, &large).await);
    }
    let _other = Client::upgrade_over(dial_from(3), &large).await.unwrap();
    let end = link.close().await;
    assert_eq!((&*end.connection_id, cause_of(&end).as_deref()), (&*own[4].id, Some("heads_total")));
    let words = own[4].text().await;
    assert!(words.contains("\"type\":7") && words.contains("\"allowReconnect\":true"), "{words}");
    assert!(kept() <= 40_000);
}

#[tokio::test(crate = "paused")]
async fn a_client_over_the_limit_of_its_address_takes_no_room_of_other_heads() {
    let mut settings = settings();
    settings.limits = FrontendLimits { heads_total_bytes: 13_000, ..settings.limits };
    settings.limits.connections_per_address = Some(2);
    let (fixture, _link) = Fixture::with(settings, 1).with_chat().await;
    let large = format!("/chat?x={}", "x".repeat(6_000));
    let mut own = Vec::new();
    for _ in 0..2 {
        own.push(Client::upgrade(&fixture, &large).await.unwrap());
    }
    let kept = fixture.shared.limits.heads.kept_bytes();
    let dial_other = || fixture.dial_from(([198, 51, 100, 1], 7).into(), 64 * 1024);
    let _others = [
        Client::upgrade_over(dial_other(), "/chat").await.unwrap(),
        Client::upgrade_over(dial_other(), "/chat").await.unwrap(),
    ];
    assert_eq!(Client::upgrade_over(dial_other(), &large).await.err(), Some(429));
    assert_eq!(fixture.shared.limits.heads.kept_bytes(), kept, "no head is evicted");
    assert_eq!(fixture.shared.counters_of(0).limit(Limit::HeadTotal).get(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_client_is_announced_once_with_query_headers_address_and_its_handshake() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let target = format!("/chat?room=7&access_token={}", token_of("ann"));
    let mut client = Client::upgrade(&fixture, &target).await.unwrap();
    link.fence().await;
    client.send(JSON_HANDSHAKE).await;
    let open = link.opening().await;
    assert_eq!(open.query.as_deref(), Some("?room=7"), "tokens stay at the node");
    assert_eq!(open.protocol.as_deref(), Some("json"));
    let header = |name: &str| {
        let found = open.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.and_then(|(_, values)| values.first()).map(ToString::to_string)
    };
    assert_eq!(header("x-app").as_deref(), Some("kept"));
    assert_eq!(header(TRANSPORT_HEADER), None, "only the others are named");
    assert_eq!(header(REMOTE_HEADER).as_deref(), Some("192.0.2.1:40000"));
    let (text, data) = link.data().await;
    assert_eq!((text.as_str(), data.data_type, &data.connection_id), (JSON_HANDSHAKE, 1, &open.connection_id));
    link.write(&open.connection_id, "{}\u{1e}").await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn data_directly_after_the_handshake_is_forwarded_after_it() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    let call = &*cast("Hi");
    client.send(&format!("{JSON_HANDSHAKE}{call}")).await;
    client.accept(&mut link).await;
    assert_eq!(link.data().await.0, call);
}

#[tokio::test(crate = "paused")]
async fn a_client_without_a_handshake_is_refused_in_time_without_a_notice() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    assert_eq!(client.next().await, Received::Text("{\"error\":\"Handshake was canceled.\"}".into()));
    assert_eq!(client.next().await, Received::End(Some(1000)));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_handshake_for_an_unknown_protocol_is_refused_by_name() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.send("{\"protocol\":\"xml\",\"version\":1}\u{1e}").await;
    let Received::Text(refusal) = client.next().await else { panic!("no answer") };
    assert!(refusal.contains("xml"), "{refusal}");
    assert_eq!(client.next().await, Received::End(Some(1000)));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_broken_rule_of_websockets_before_the_handshake_is_closed_with_1002() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    // A continuation frame without a first frame.
    let frame = tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
        "x".as_bytes().to_vec(),
        tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(
            tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Continue,
        ),
        true,
    );
    client.write(Message::Frame(frame)).await;
    assert_eq!(client.next().await, Received::End(Some(1002)));
}

#[tokio::test(crate = "paused")]
async fn without_an_app_server_negotiation_and_upgrade_are_503() {
    let fixture = Fixture::start();
    assert_eq!(exchange(&fixture, "POST", "/chat/negotiate", "").await.0, 503);
    assert_eq!(Client::upgrade(&fixture, "/chat").await.err(), Some(503));
}

#[tokio::test(crate = "paused")]
async fn a_connection_token_opens_one_connection_with_the_id_of_its_negotiation() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let (id, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    let client = Client::connect(&fixture, &mut link, &target).await;
    assert_eq!(client.id, id);
    assert_eq!(Client::upgrade(&fixture, &target).await.err(), Some(409), "it is taken");
    client.close().await;
    assert_eq!(link.close().await.connection_id, id);
    assert_eq!(Client::upgrade(&fixture, &target).await.err(), Some(404), "it is used up");
    assert_eq!(Client::upgrade(&fixture, "/chat?id=forged").await.err(), Some(404));
}

#[tokio::test(crate = "paused")]
async fn the_user_of_an_access_token_is_a_claim_of_the_opening() {
    let hub = HubManifest { authentication: Authentication::Required, ..HubManifest::new("chat", "/chat") };
    let (fixture, mut link) = Fixture::start().with_app(hub).await;
    assert_eq!(Client::upgrade(&fixture, "/chat").await.err(), Some(401));
    assert_eq!(Client::upgrade(&fixture, "/chat?access_token=rubbish").await.err(), Some(401));
    let target = format!("/chat?access_token={}", token_of("ann"));
    let mut client = Client::upgrade(&fixture, &target).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    let open = link.opening().await;
    let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, value)| &**value);
    assert_eq!(user, Some("ann"));
}

#[tokio::test(crate = "paused")]
async fn the_app_decides_about_a_client_at_negotiate_and_its_refusal_is_passed_on() {
    let (fixture, mut link) = Fixture::start().with_app(chat(|hub| hub.asks_app = true)).await;
    link.app.decide(Some("bob"));
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    *link.app.dialler.decision.lock().unwrap() = None;
    let (status, body) = exchange(&fixture, "POST", "/chat/negotiate?negotiateVersion=1", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (418, "not today"));
    // The token seals the decision: the app is not queried again.
    let mut client = Client::upgrade(&fixture, &format!("/chat?id={token}")).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    let open = link.opening().await;
    assert!(open.claims.iter().any(|(name, value)| name == USER_ID_CLAIM && value == "bob"), "{:?}", open.claims);
}

#[tokio::test(crate = "paused")]
async fn clients_of_a_hub_whose_app_does_not_decide_leave_calls_to_other_hubs() {
    let fixture = Fixture::start();
    let hubs = chat_and_news().map(|hub| HubManifest { asks_app: true, ..hub });
    let (app, _links) = fixture.app_of(hubs).await;
    *app.dialler.hanging.lock().unwrap() = Some("chat");
    assert_eq!(exchange(&fixture, "POST", "/chat/negotiate?negotiateVersion=1", "").await.0, 503, "it does not answer");
    for _ in 0..600 {
        let fixture = fixture.clone();
        spawn_local(async move { exchange(&fixture, "POST", "/chat/negotiate?negotiateVersion=1", "").await });
    }
    // sleep: paused time; the calls begin
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    negotiate(&fixture, "/news", "").await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    *app.dialler.hanging.lock().unwrap() = None;
    // sleep: paused time; the calls in flight end
    tokio::time::sleep(fixture.shared.settings.negotiate_timeout).await;
    negotiate(&fixture, "/chat", "").await;
}

#[tokio::test(crate = "paused")]
async fn the_app_gets_only_the_user_verified_by_the_node() {
    let (fixture, link) = Fixture::start().with_app(chat(|hub| hub.asks_app = true)).await;
    let mallory = User { id: Some("mallory".into()), ..User::default() }.to_header();
    let ask = async |query: &str| {
        let target = format!("/chat/negotiate?negotiateVersion=1{query}");
        let asked = request_with("POST", &target, &[(USER_HEADER, &mallory)]);
        HttpConnection::open(&fixture).await.exchange(asked).await.0.as_u16()
    };
    assert_eq!(ask(&format!("&access_token={}", token_of("ann"))).await, 200);
    assert_eq!(ask("").await, 200);
    // A rejected token may be issued by the app, so the app decides. The client needs a user from the link.app.
    assert_eq!(ask("&access_token=rubbish").await, 401);
    link.app.decide(Some("bob"));
    assert_eq!(ask("&access_token=rubbish").await, 200);
    let known = link.app.dialler.known.lock().unwrap();
    let ids: Vec<_> = known.iter().map(|user| user.as_ref().and_then(|user| user.id.as_deref())).collect();
    assert_eq!(ids, [Some("ann"), None, None, None]);
    let ann = known[0].as_ref().unwrap();
    assert!(ann.expires_s.is_some() && ann.claims.iter().any(|(name, _)| name == "nameid"), "{ann:?}");
}

#[tokio::test(crate = "paused")]
async fn new_clients_alternate_between_app_servers() {
    let fixture = Fixture::start();
    let (mut first, mut second) = (fixture.server("app-1").await, fixture.server("app-2").await);
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(first.client().await);
        clients.push(second.client().await);
    }
    first.fence().await;
    second.fence().await;
}

#[tokio::test(crate = "paused")]
async fn new_clients_alternate_between_the_links_of_a_pool() {
    let fixture = Fixture::with(Settings { pool_size: 2, ..settings() }, 2);
    let mut app = fixture.app("app-1", vec![HubManifest::new("chat", "/chat")]);
    let mut links = [app.link().await, app.link().await];
    links.sort_by_key(|link| link.slot);
    for _ in 0..2 {
        for link in &mut links {
            Client::connect(&fixture, link, "/chat").await.close().await;
            link.close().await;
        }
    }
}

#[tokio::test(crate = "paused")]
async fn a_path_without_a_hub_and_paths_of_the_fleet_are_404() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    assert_eq!(exchange(&fixture, "GET", "/.trunkline/manifest", "").await.0, 404);
    assert_eq!(exchange(&fixture, "POST", "/.trunkline/link/negotiate", "").await.0, 404);
    assert_eq!(exchange(&fixture, "PUT", "/chat", "").await.0, 405);
}

#[tokio::test(crate = "paused")]
async fn a_path_without_a_hub_is_refused_with_what_is_missing() {
    let fixture = Fixture::with(Settings { accepts_dial_in: true, ..settings() }, 1);
    let reason = async |path: &str| {
        let (status, body) = HttpConnection::open(&fixture).await.exchange(request("POST", path, "")).await;
        assert_eq!(status, 404, "{path}");
        body
    };
    let _app = fixture.server("app-1").await;
    for (path, words) in [
        ("/news/negotiate", "no app server of this node has a hub with this path"),
        ("/api/hubs/chat/:send", "the REST data plane is off at this port (see --rest"),
        ("/client/negotiate", "?hub=NAME"),
        ("/metrics", "the path is of the admin port"),
    ] {
        let reason = reason(path).await;
        assert!(reason.starts_with("no hub is served at this path: ") && reason.contains(words), "{path}: {reason}");
    }
}
