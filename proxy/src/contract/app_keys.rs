//! App keys: effects of removing a key, and isolation between the keys of different apps.

use std::num::NonZeroU32;
use std::time::Duration;

use trunkline_protocol::access_token;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{AckStatus, ServiceMessage};

use super::app::membership;
use super::client::{Client, JSON_HANDSHAKE};
use super::fixture::{Fixture, KEY, paused, settings};
use super::fleet_nodes::{FleetNode, peers, until};
use super::http::{exchange, negotiate};
use super::inbound_links::{DialInLink, HUB, ONE, settle};
use super::scene::shop;
use crate::engine::upstream::DIAL_IN_HUBS_MAX;
use crate::ground::auth::{AccessSettings, AppKey};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{FrontendLimits, SecretLine, Settings};
use crate::ground::net::connector::MemoryNetwork;

const OLD: &str = "the old key of one app of several";
const NEW: &str = "the new key of one app of several";

/// Time until a node notices a change.
const SOON: Duration = Duration::from_secs(2);

pub(super) fn keys(text: &str) -> Vec<AppKey> {
    AppKey::lines(text).unwrap()
}

pub(super) async fn node_with(app_keys: Vec<AppKey>) -> FleetNode {
    let settings = Settings { accepts_dial_in: true, ..peers(&[1]) };
    let access = AccessSettings { app_keys, ..AccessSettings::default() };
    FleetNode::start(&MemoryNetwork::default(), 1, (settings, access)).await
}

/// Replaces the app keys, as a reload of the key files does.
fn read_anew(node: &FleetNode, text: &str) {
    node.fixture.admission.signing_keys.set_flags(&keys(text)).unwrap();
}

/// Proves that a link is alive by a request with a response.
async fn is_alive(link: &mut DialInLink, client: &Client) -> bool {
    link.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "red", 7)));
    link.ack().await.status == AckStatus::Ok
}

#[tokio::test(crate = "paused")]
async fn links_of_a_removed_key_end_and_links_of_other_keys_stay() {
    let node = node_with(keys(&format!("bench={OLD}"))).await;
    let (mut first, mut second) =
        (DialInLink::open_by(OLD, &node, "home_1").await, DialInLink::open_by(OLD, &node, "home_1").await);
    let (mut one, mut two) = (first.client(&node, "ann").await, second.client(&node, "ben").await);
    read_anew(&node, &format!("bench={OLD}\nbench={NEW}"));
    assert!(is_alive(&mut first, &one).await && is_alive(&mut second, &two).await, "while both keys are good");
    let mut third = DialInLink::open_by(NEW, &node, "home_2").await;
    read_anew(&node, &format!("bench={NEW}"));
    for link in [&mut first, &mut second] {
        let ServiceMessage::ServiceError(reason) = link.next().await else { panic!("no reason") };
        assert!(reason.error.contains("was removed"), "{}", reason.error);
        link.ended().await;
    }
    // As after the shutdown of an app server: another one takes over the clients.
    let mut opened = Vec::new();
    for _ in 0..2 {
        let ServiceMessage::OpenConnection(open) = third.next().await else { panic!("no opening") };
        opened.push(open.connection_id.to_string());
    }
    opened.sort_unstable();
    let mut clients = [one.id.clone(), two.id.clone()];
    clients.sort_unstable();
    assert_eq!(opened, clients);
    assert!(is_alive(&mut third, &one).await && is_alive(&mut third, &two).await);
    read_anew(&node, "");
    third.ended().await;
    for client in [&mut one, &mut two] {
        let words = client.text().await;
        assert!(words.contains("\"type\":7") && words.contains("\"allowReconnect\":true"), "{words}");
    }
}

#[tokio::test(crate = "paused")]
async fn links_end_when_their_key_no_longer_covers_the_hub_and_never_with_the_access_key() {
    let node = node_with(keys(&format!("shop={OLD};bench;shop"))).await;
    let mut of_app = DialInLink::open_by(OLD, &node, "home_1").await;
    let mut of_fleet = DialInLink::open(&node, "home_2", ONE).await;
    read_anew(&node, &format!("other={OLD};bench"));
    settle().await;
    let hub = node.fixture.shared.hubs.keyed(HUB).unwrap();
    let open = || hub.pools().iter().map(|pool| pool.open_links()).sum::<usize>();
    assert_eq!(open(), 2, "the key is good for the hub as before");
    read_anew(&node, &format!("shop={OLD};shop"));
    until(SOON, "the hub is none of the key's", || open() == 1).await;
    of_app.ended().await;
    let client = of_fleet.client(&node, "ann").await;
    assert!(is_alive(&mut of_fleet, &client).await);
}

#[tokio::test(crate = "paused")]
async fn clients_of_one_app_leave_connections_to_clients_of_others_and_keep_their_places() {
    let limits = FrontendLimits { connections: NonZeroU32::new(40), ..FrontendLimits::default() };
    let app_keys = keys(&format!("shop={OLD}\nnews={NEW}"));
    let fixture = Fixture::with((Settings { limits, ..settings() }, AccessSettings { app_keys, ..<_>::default() }), 1);
    let (_app, [mut link, mut news]) = fixture.app_of([shop(), HubManifest::new("news", "/news")]).await;
    let (client, target) = Client::connect_stateful(&fixture, &mut link, "/shop").await;
    let mut of_shop = Vec::new();
    while of_shop.len() < 40
        && let Ok(client) = Client::upgrade(&fixture, "/shop").await
    {
        of_shop.push(client);
    }
    assert!((15..=20).contains(&of_shop.len()), "{}", of_shop.len());
    let (status, refusal) = exchange(&fixture, "GET", &sse(&fixture, "/shop").await, "").await;
    assert_eq!(status.as_u16(), 503);
    assert!(refusal.contains("share of connections, now 20:") && refusal.contains("--connections-max"), "{refusal}");
    let mut of_news = Vec::new();
    for _ in 0..5 {
        of_news.push(Client::connect(&fixture, &mut news, "/news").await);
    }
    drop(client);
    settle().await;
    assert_eq!(Client::upgrade(&fixture, "/shop").await.err(), Some(503), "the place waits for the lost client");
    let mut client = Client::upgrade(&fixture, &target).await.unwrap();
    assert!(client.text().await.contains("\"type\":9"));
    assert_eq!(Client::upgrade(&fixture, "/shop").await.err(), Some(503));
    client.close().await;
    of_shop.clear();
    until(SOON, "the places are free", || fixture.shared.sockets() == 5).await;
    Client::upgrade(&fixture, "/shop").await.unwrap();
}

/// Target of the first GET of an event stream at this path.
async fn sse(fixture: &Fixture, path: &str) -> String {
    format!("{path}?id={}", negotiate(fixture, path, "").await.1)
}

/// Sends a request for a missing connection of a dial-in hub, with a token signed by this key.
async fn name_hub(node: &FleetNode, key: &str, hub: &str) -> String {
    let audience = ("aud".to_owned(), format!("http://any.example/client/?hub={hub}"));
    let token = access_token::sign(&AccessKey::new(key).unwrap(), "ann", &[audience], unix_seconds() + 60);
    let target = format!("/client/?hub={hub}&id=none&access_token={token}");
    exchange(&node.fixture, "GET", &target, "").await.1
}

#[tokio::test(crate = "paused")]
async fn hubs_that_tokens_of_one_key_name_leave_a_half_to_those_of_others() {
    let node = node_with(keys(&format!("shop={OLD};shop*\nnews={NEW};news*"))).await;
    let is_known = |hub: &str| node.fixture.shared.hubs.keyed(&format!("?hub={hub}")).is_some();
    for number in 0..DIAL_IN_HUBS_MAX {
        name_hub(&node, OLD, &format!("shop{number}")).await;
    }
    name_hub(&node, NEW, "news1").await;
    assert!(is_known("news1"), "the other key has its places");
    assert!(is_known("shop499") && !is_known("shop500"));
    let refusal = name_hub(&node, OLD, "shop1000").await;
    let text = "500 hubs named by app servers and clients by the key of app shop, which is the most for one key";
    assert!(refusal.contains(text), "{refusal}");
    read_anew(&node, "");
    name_hub(&node, KEY, "any").await;
    assert!(is_known("any"));
}

#[tokio::test(crate = "paused")]
async fn app_servers_of_which_tokens_only_speak_take_no_place() {
    let node = node_with(keys(&format!("bench={OLD}"))).await;
    let mut home = DialInLink::open_by(OLD, &node, "home_1").await;
    let known = || node.fixture.shared.hubs.app_servers.ids().len();
    let (before, mut clients) = (known(), Vec::new());
    for ghost in 0..3 {
        let claims = [
            ("aud".to_owned(), "http://any.example/client/?hub=bench".to_owned()),
            ("asrs.s.sn".to_owned(), format!("ghost_{ghost}")),
            ("asrs.s.ssticky".to_owned(), "Preferred".to_owned()),
        ];
        let token = access_token::sign(&AccessKey::new(OLD).unwrap(), "ann", &claims, unix_seconds() + 60);
        let mut client = Client::upgrade(&node.fixture, &format!("/client/{HUB}&access_token={token}")).await.unwrap();
        client.send(JSON_HANDSHAKE).await;
        let ServiceMessage::OpenConnection(_) = home.next().await else { panic!("no opening") };
        clients.push(client);
    }
    assert_eq!(known(), before);
}
