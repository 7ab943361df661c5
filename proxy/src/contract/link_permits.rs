//! Permits of links: one app leaves links to others, refusals name the limit, and closed links return their permits.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use trunkline_channel::{Dialled, open_channel};
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};

use super::fixture::paused;
use super::fleet_nodes::{FleetNode, peers, until};
use super::inbound_links::{DialInLink, ONE};
use crate::ground::auth::{AccessSettings, AppKey};
use crate::ground::config::{LinkSettings, SecretLine, Settings};
use crate::ground::net::connector::MemoryNetwork;

const SHOP: &str = "the key of the app shop, of several";
const NEWS: &str = "the key of the app news, of several";

/// Time until a node notices a change.
const SOON: Duration = Duration::from_secs(2);

/// Starts a node with two apps that share a hub.
async fn node_with(links: LinkSettings) -> FleetNode {
    let app_keys = AppKey::lines(&format!("shop={SHOP};bench;shared=true\nnews={NEWS};bench;shared=true")).unwrap();
    let access = AccessSettings { app_keys, ..AccessSettings::default() };
    let settings = (Settings { accepts_dial_in: true, links, ..peers(&[1]) }, access);
    FleetNode::start(&MemoryNetwork::default(), 1, settings).await
}

async fn dial(node: &FleetNode, key: &str, instance: &str) -> Result<DialInLink, String> {
    DialInLink::dial_by(key, node, instance, (ONE, None)).await
}

#[tokio::test(crate = "paused")]
async fn one_app_leaves_links_to_another_and_gets_more_when_it_closes_some() {
    let node = node_with(LinkSettings { links_max: Some(8), ..LinkSettings::DEFAULT }).await;
    let mut shop = Vec::new();
    let refusal = loop {
        match dial(&node, SHOP, "shop_1").await {
            Ok(link) => shop.push(link),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(shop.len(), 4);
    assert!(refusal.starts_with("503") && refusal.contains("the key of app shop"), "{refusal}");
    assert!(refusal.contains("--links-max"), "{refusal}");
    let _news = [dial(&node, NEWS, "news_1").await.unwrap(), dial(&node, NEWS, "news_1").await.unwrap()];
    let limits = &node.fixture.shared.limits;
    assert_eq!(limits.refusals.all(), [("links", "shop".into(), 1)]);
    shop.truncate(1);
    until(SOON, "closed links return their permits", || limits.links.len() == 3).await;
    assert!(dial(&node, SHOP, "shop_1").await.is_ok());
}

#[tokio::test(crate = "paused")]
async fn an_address_has_a_limit_of_links_for_all_its_keys() {
    let node = node_with(LinkSettings { links_per_address_max: Some(2), ..LinkSettings::DEFAULT }).await;
    let _links = [dial(&node, SHOP, "shop_1").await.unwrap(), dial(&node, NEWS, "news_1").await.unwrap()];
    let refusal = dial(&node, NEWS, "news_1").await.err().unwrap();
    assert!(refusal.starts_with("429") && refusal.contains("--links-per-address-max"), "{refusal}");
    assert_eq!(node.fixture.shared.limits.refusals.all(), [("links", "(address)".into(), 1)]);
}

#[tokio::test(crate = "paused")]
async fn a_channel_of_an_app_server_counts_as_a_link_until_it_ends() {
    let node = node_with(LinkSettings { links_max: Some(4), ..LinkSettings::DEFAULT }).await;
    let keys = AccessKeys::new(vec![AccessKey::new(SHOP).unwrap()]).unwrap();
    let channel = async || {
        let dialled = Dialled { peer_kind: PeerKind::DialIn, name: ONE };
        open_channel(|| std::future::ready(Ok(node.fixture.dial())), dialled, &keys).await
    };
    let mut open = vec![channel().await.unwrap(), channel().await.unwrap()];
    assert!(channel().await.is_err(), "the rest is for others");
    assert!(dial(&node, NEWS, "news_1").await.is_ok());
    open.pop();
    let links = &node.fixture.shared.limits.links;
    until(SOON, "the channel has ended", || links.len() < 3).await;
    assert!(channel().await.is_ok());
    spawn_local(async move {
        let _held = open;
        // sleep: the test advances paused time
        sleep(Duration::from_secs(60)).await;
    });
    until(Duration::from_secs(40), "an idle channel ends", || links.len() == 0).await;
}
