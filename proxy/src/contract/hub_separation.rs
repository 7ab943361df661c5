//! Separation of hubs: cookies of a page, tokens and keys of one app are not valid for another app.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{client_async, tungstenite};
use trunkline_channel::{ChannelStream, Dialled, OpenChannelError, open_channel};
use trunkline_protocol::access_token;
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{OpenConnection, ServiceMessage};

use super::client::{Client, JSON_HANDSHAKE, Received};
use super::fixture::{Fixture, KEY, NodeSettings, paused, settings};
use super::fleet_nodes::FleetNode;
use super::http::exchange;
use super::inbound_links::{DialInLink, HUB, ONE, node_with_link, token};
use crate::ground::auth::{AccessSettings, AppKey, TokenPolicy};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{HostRules, SecretLine, SecretSources, Settings};
#[cfg(feature = "tls")]
use crate::ground::net::tls::ClientTls;
use crate::ground::routing::RuleFile;
use crate::node::key_reload::reload;
use crate::node::rule_set;
use crate::node::rule_set::RuleSet;

pub(super) const APP_KEY: &str = "the key of one app of several";

const VICTIM: [(&str, &str); 3] =
    [("cookie", "session=victim"), ("authorization", "Basic dmljdGltOng="), ("x-asrs-user-id", "admin")];

/// Connects a client with these headers, and returns the opening sent to the app server.
async fn opened(node: &FleetNode, link: &mut DialInLink, headers: &[(&'static str, &str)]) -> OpenConnection {
    let target = format!("/client/{HUB}&access_token={}", token("client", "ann"));
    let mut client = Client::upgrade_with(node.fixture.dial(), &target, headers).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    let ServiceMessage::OpenConnection(open) = link.next().await else { panic!("no opening") };
    client.close().await;
    let ServiceMessage::CloseConnection(_) = link.next().await else { panic!("no end") };
    open
}

#[tokio::test(crate = "paused")]
async fn a_page_that_may_not_connect_elsewhere_comes_to_dial_in_without_the_visitors_credentials() {
    let (node, mut link) = node_with_link().await;
    for (origin, keeps) in [
        (Some("https://evil.example"), false),
        (Some("null"), false),
        (Some("http://node.example"), true),
        (None, true),
    ] {
        let headers: Vec<_> = VICTIM.into_iter().chain(origin.map(|origin| ("origin", origin))).collect();
        let open = opened(&node, &mut link, &headers).await;
        let has = |wanted: &str| open.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        assert_eq!([has("cookie"), has("authorization")], [keeps; 2], "{origin:?}");
        assert!(has("x-app") && !has("x-asrs-user-id"), "{origin:?}: {:?}", open.headers);
    }
}

/// Settings of a node with two dialled hubs, and an app key for the hub `chat`.
pub(super) fn two_hubs() -> NodeSettings {
    let app_keys = vec![format!("chat={APP_KEY}").parse().unwrap()];
    let tokens = TokenPolicy { is_required: true, ..TokenPolicy::default() };
    let access = AccessSettings { app_keys, tokens, ..AccessSettings::default() };
    (Settings { accepts_dial_in: true, ..settings() }, access)
}

/// Like [`two_hubs`], with other settings of access.
fn two_hubs_with(change: impl FnOnce(AccessSettings) -> AccessSettings) -> NodeSettings {
    let (settings, access) = two_hubs();
    (settings, change(access))
}

pub(super) fn hubs() -> [HubManifest; 2] {
    [HubManifest::new("chat", "/chat"), HubManifest::new("admin", "/admin")]
}

/// Negotiates with an access token and returns the status.
pub(super) async fn enter(fixture: &Fixture, hub: &str, token: &str) -> u16 {
    let target = format!("{hub}/negotiate?negotiateVersion=1&access_token={token}");
    exchange(fixture, "POST", &target, "").await.0.as_u16()
}

pub(super) fn user_token(key: &str, audience: Option<&str>) -> String {
    let audience: Vec<_> = audience.map(|audience| ("aud".to_owned(), audience.to_owned())).into_iter().collect();
    access_token::sign(&AccessKey::new(key).unwrap(), "ann", &audience, unix_seconds() + 60)
}

#[tokio::test(crate = "paused")]
async fn a_token_for_the_clients_of_one_hub_or_for_rest_is_no_log_in_at_another_hub() {
    let fixture = Fixture::with(two_hubs(), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    for (audience, statuses) in [
        (None, [200, 200]),
        (Some("an audience of the app"), [200, 200]),
        (Some("http://node.example/client/?hub=chat"), [200, 401]),
        (Some("http://node.example/client/?hub=shop"), [401, 401]),
        (Some("http://node.example/api/"), [401, 401]),
        (Some("http://node.example/server?hub=chat"), [401, 401]),
    ] {
        let token = user_token(KEY, audience);
        let found = [enter(&fixture, "/chat", &token).await, enter(&fixture, "/admin", &token).await];
        assert_eq!(found, statuses, "{audience:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn the_key_of_an_app_opens_its_hub_and_no_other() {
    let fixture = Fixture::with(two_hubs(), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    let token = user_token(APP_KEY, None);
    assert_eq!([enter(&fixture, "/chat", &token).await, enter(&fixture, "/admin", &token).await], [200, 401]);
    for (hub, is_in) in [("chat", true), ("chat_room", true), ("admin", false)] {
        let audience = format!("http://node.example/client/?hub={hub}");
        let target = format!("/client/negotiate?hub={hub}&access_token={}", user_token(APP_KEY, Some(&audience)));
        // An admitted client gets no further without an app server of the hub.
        assert_eq!(exchange(&fixture, "POST", &target, "").await.0 != 401, is_in, "{hub}");
    }
    fixture.admission.signing_keys.set_flags(&[]).unwrap();
    assert_eq!(enter(&fixture, "/chat", &token).await, 401, "it was taken away");
}

#[tokio::test(crate = "paused")]
async fn a_key_file_named_by_the_rules_is_reloaded_when_it_changes() {
    const NEW: &str = "the new key of one app of several";
    let fixture = Fixture::with(two_hubs_with(|access| AccessSettings { app_keys: Vec::new(), ..access }), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    let file = |name: &str| std::env::temp_dir().join(format!("trunkline-{name}-named-{}", std::process::id()));
    let (rules, key) = (file("rules"), file("key"));
    std::fs::write(&key, APP_KEY).unwrap();
    std::fs::write(&rules, format!("[app-keys.chat]\nkey-file = {key:?}\n")).unwrap();
    let set = RuleSet::new(
        fixture.shared.clone(),
        fixture.admission.clone(),
        fixture.webhooks.clone(),
        Vec::new(),
        #[cfg(feature = "tls")]
        ClientTls::default(),
    );
    let RuleFile { rules: read, access } = RuleFile::read(&rules).unwrap();
    set.apply(&read, &access).unwrap();
    spawn_local(rule_set::watch_file(fixture.shared.clone(), set, rules.clone()));
    let statuses = async || {
        // sleep: the test advances paused time
        sleep(Duration::from_secs(3)).await;
        let [old, new] = [APP_KEY, NEW].map(|key| user_token(key, None));
        [enter(&fixture, "/chat", &old).await, enter(&fixture, "/chat", &new).await]
    };
    assert_eq!(statuses().await, [200, 401]);
    std::fs::write(&key, NEW).unwrap();
    assert_eq!(statuses().await, [401, 200]);
    std::fs::write(&key, "short").unwrap();
    assert_eq!(statuses().await, [401, 200], "a bad file keeps the keys in force");
    assert_eq!(fixture.shared.reports.conditions.update(Vec::new(), false, Instant::now()).len(), 1);
    std::fs::write(&key, APP_KEY).unwrap();
    assert_eq!(statuses().await, [200, 401]);
    [rules, key].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[tokio::test(crate = "paused")]
async fn a_table_with_the_issuer_of_the_flags_is_refused() {
    let tokens = TokenPolicy { issuer: Some("https://a".into()), ..TokenPolicy::default() };
    let fixture = Fixture::with(two_hubs_with(|access| AccessSettings { tokens, ..access }), 1);
    let set = RuleSet::new(
        fixture.shared.clone(),
        fixture.admission.clone(),
        fixture.webhooks.clone(),
        Vec::new(),
        #[cfg(feature = "tls")]
        ClientTls::default(),
    );
    let apply = |issuer: &str| {
        let rules = format!("[issuers.staff]\nissuer = ['b', '{issuer}']\njwks = 'https://staff.example/keys'");
        let RuleFile { rules, access } = RuleFile::parse(&rules).unwrap();
        set.apply(&rules, &access)
    };
    let problem = apply("https://a").unwrap_err().to_string();
    assert!(problem.contains("[issuers.staff]") && problem.contains("--jwt-issuer"), "{problem}");
    apply("https://b").unwrap();
}

#[tokio::test(crate = "paused")]
async fn tables_of_issuers_are_in_force_before_the_first_request() {
    let file = std::env::temp_dir().join(format!("trunkline-issuer-at-start-{}", std::process::id()));
    std::fs::write(&file, "\u{feff}a secret of an issuer, long enough").unwrap();
    let tables = RuleFile::parse(&format!("[issuers.staff]\nissuer = 'https://staff'\nkeys = {file:?}"));
    let tables = tables.unwrap().access;
    std::fs::remove_file(&file).unwrap();
    let fixture = Fixture::with(two_hubs_with(|access| AccessSettings { tables, ..access }), 1);
    let claims = [("iss".to_owned(), "https://staff".to_owned())];
    let by = |key: &str| access_token::sign(&AccessKey::new(key).unwrap(), "ann", &claims, unix_seconds() + 60);
    let verifier = &fixture.admission.verifier;
    assert!(verifier.verify_now(&by("a secret of an issuer, long enough"), "chat").is_ok());
    assert!(verifier.verify_now(&by(KEY), "chat").is_err(), "a key of the fleet does not vouch for the issuer");
}

#[tokio::test(crate = "paused")]
async fn keys_of_files_and_rules_that_overlap_stay_out_of_force() {
    let fixture = Fixture::with(two_hubs_with(|access| AccessSettings { app_keys: Vec::new(), ..access }), 1);
    let keys = &fixture.admission.signing_keys;
    let apps = |text: &str| AppKey::lines(text).unwrap();
    keys.set_rules(&apps(&format!("shop={APP_KEY}"))).unwrap();
    let count = || keys.load().len();
    assert_eq!(count(), 2);
    let eu = apps("shop_eu=the key of another app of several");
    assert!(keys.set_flags(&eu).is_err() && count() == 2);
    keys.set_rules(&apps(&format!("shop={APP_KEY};shop"))).unwrap();
    keys.set_flags(&eu).unwrap();
    assert_eq!(count(), 3);
    assert!(keys.set_rules(&apps(&format!("shop={APP_KEY}"))).is_err() && count() == 3);
}

/// Requests an app server link over a stream and returns the status.
async fn ask_for_link<S: AsyncRead + AsyncWrite + Unpin>(stream: S, hub: &str, key: &str) -> u16 {
    ask_as("home_1", stream, hub, key).await
}

/// Requests a link for an app server id and returns the status.
async fn ask_as<S: AsyncRead + AsyncWrite + Unpin>(id: &str, stream: S, hub: &str, key: &str) -> u16 {
    let mut request = format!("ws://{ONE}/server/?hub={hub}&cid=1").into_client_request().unwrap();
    let token = user_token(key, Some(&format!("http://any.example/server/?hub={hub}")));
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request.headers_mut().insert("x-asrs-server-id", id.parse().unwrap());
    match client_async(request, stream).await {
        Ok(_) => 101,
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

/// Opens a channel at a node's client port with this key; returns the status on error.
async fn channel(fixture: &Fixture, key: &str, dialled: Dialled<'_>) -> Result<ChannelStream<DuplexStream>, u16> {
    let keys = AccessKeys::new(vec![AccessKey::new(key).unwrap()]).unwrap();
    let opened = open_channel(|| std::future::ready(Ok(fixture.dial())), dialled, &keys).await;
    opened.map_err(|error| match error {
        OpenChannelError::Refused(answer) => answer.status.as_u16(),
        other => panic!("{other}"),
    })
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_dials_in_has_no_id_that_the_node_gives_itself() {
    let fixture = Fixture::with(two_hubs(), 1);
    for (id, status) in [("?webhook", 400), ("?", 400), ("home_1?", 101)] {
        assert_eq!(ask_as(id, fixture.dial(), "chat", KEY).await, status, "{id}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_without_a_key_does_not_use_up_the_warning_about_plain_text() {
    let fixture = Fixture::with(two_hubs(), 1);
    let has_warned = || fixture.admission.has_warned_of_plain.load(Ordering::Relaxed);
    assert_eq!(ask_for_link(fixture.dial(), "chat", "a key of somebody else").await, 401);
    assert!(!has_warned());
    assert_eq!((ask_for_link(fixture.dial(), "chat", KEY).await, has_warned()), (101, true));
}

#[tokio::test(crate = "paused")]
async fn only_an_app_server_with_the_key_dials_in_through_its_channel() {
    let (settings, access) = two_hubs();
    let fixture = Fixture::with((Settings { needs_encrypted_dial_in: true, ..settings }, access), 1);
    assert_eq!(ask_for_link(fixture.dial(), "chat", APP_KEY).await, 403, "in plain text");
    let channel = async |key: &str, peer_kind| channel(&fixture, key, Dialled { peer_kind, name: ONE }).await;
    for key in [KEY, APP_KEY] {
        let stream = channel(key, PeerKind::DialIn).await.unwrap();
        assert_eq!(ask_for_link(stream, "chat", key).await, 101);
    }
    let stream = channel(APP_KEY, PeerKind::DialIn).await.unwrap();
    assert_eq!(ask_for_link(stream, "admin", APP_KEY).await, 401, "a hub of others");
    for (key, peer_kind) in [
        ("a key of somebody else", PeerKind::DialIn),
        (APP_KEY, PeerKind::NodeClients),
        (APP_KEY, PeerKind::AppServer),
        // The fleet's key opens no other kind of channel at this port.
        (KEY, PeerKind::NodeAdmin),
        (KEY, PeerKind::AppServer),
    ] {
        assert_eq!(channel(key, peer_kind).await.err(), Some(404), "{key} {peer_kind:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn silent_channels_of_one_key_do_not_block_other_keys() {
    const OTHER_KEY: &str = "the key of another app of several";
    let app_keys: Vec<AppKey> = AppKey::lines(&format!("chat={APP_KEY}\nshop={OTHER_KEY}")).unwrap();
    let fixture = Fixture::with(two_hubs_with(|access| AccessSettings { app_keys: app_keys.clone(), ..access }), 1);
    let dialled = || Dialled { peer_kind: PeerKind::DialIn, name: ONE };
    let mut silent = Vec::new();
    let refused = loop {
        match channel(&fixture, APP_KEY, dialled()).await {
            Ok(stream) => silent.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!((silent.len(), refused), (1024, 503));
    for key in [OTHER_KEY, KEY] {
        assert_eq!(channel(&fixture, key, dialled()).await.err(), None, "{key}");
    }
    fixture.admission.signing_keys.set_flags(&app_keys).unwrap();
    assert_eq!(channel(&fixture, APP_KEY, dialled()).await.err(), Some(503), "as long as its channels wait");
    silent.pop();
}

#[tokio::test(crate = "paused")]
async fn a_channel_for_the_name_of_another_node_is_not_opened() {
    let hosts = HostRules { named: vec![ONE.parse().unwrap()], is_development: false };
    let advertise = Some("http://node-1.internal:8080".parse().unwrap());
    let (settings, access) = two_hubs();
    let fixture = Fixture::with((Settings { hosts, advertise, ..settings }, access), 1);
    for (peer_kind, name, refusal) in [
        (PeerKind::NodeClients, "node-1.internal:8080", None),
        (PeerKind::NodeClients, "node-2.internal:8080", Some(421)),
        (PeerKind::NodeClients, "node-1.internal:8090", Some(421)),
        (PeerKind::DialIn, "one.example:80", None),
        (PeerKind::DialIn, "two.example:80", Some(421)),
    ] {
        let opened = channel(&fixture, KEY, Dialled { peer_kind, name }).await;
        assert_eq!(opened.err(), refusal, "{peer_kind:?} {name}");
    }
    let without = Fixture::with(two_hubs(), 1);
    for peer_kind in [PeerKind::NodeClients, PeerKind::DialIn] {
        let any = Dialled { peer_kind, name: "any.example:80" };
        assert!(channel(&without, KEY, any).await.is_ok(), "a node that knows no name of its own takes all");
    }
}

#[tokio::test(crate = "paused")]
async fn keys_of_apps_are_reloaded_without_any_access_key_too() {
    let fixture = Fixture::with(two_hubs(), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    let statuses = async || {
        [
            enter(&fixture, "/chat", &user_token(KEY, None)).await,
            enter(&fixture, "/chat", &user_token(APP_KEY, None)).await,
        ]
    };
    assert_eq!(statuses().await, [200, 200]);
    reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &SecretSources::default()).unwrap();
    assert_eq!(statuses().await, [200, 401], "the node's own key stays");
}
