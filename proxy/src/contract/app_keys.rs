//! Keys of apps: what ends with a key that is taken away.

use std::time::Duration;

use trunkline_protocol::service::{AckStatus, ServiceMessage};

use super::app::membership;
use super::client::Client;
use super::fleet_nodes::{FleetNode, peers, until};
use super::inbound_links::{DialInLink, HUB, ONE, settle};
use super::stage::run;
use crate::auth::AppKey;
use crate::config::Settings;
use crate::net::connector::MemoryNetwork;

const OLD: &str = "the old key of one app of several";
const NEW: &str = "the new key of one app of several";

/// Time in which a node sees what has changed.
const SOON: Duration = Duration::from_secs(2);

fn keys(text: &str) -> Vec<AppKey> {
    AppKey::lines(text).unwrap()
}

/// A node with these keys of apps.
async fn node_with(app_keys: Vec<AppKey>) -> FleetNode {
    let settings = Settings { accepts_dial_in: true, app_keys, ..peers(&[1]) };
    FleetNode::start(&MemoryNetwork::default(), 1, settings).await
}

/// Puts these keys of apps in force, as a node does that reads its files anew.
fn read_anew(node: &FleetNode, text: &str) {
    node.stage.shared.admission.signing_keys.set_flags(&keys(text)).unwrap();
}

/// Shows that a link carries questions and answers.
async fn is_alive(link: &mut DialInLink, client: &Client) -> bool {
    link.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "red", 7)));
    link.ack().await.status == AckStatus::Ok
}

#[test]
fn links_of_a_key_that_is_taken_away_end_and_those_of_others_stay() {
    run(async {
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
            assert!(reason.error.contains("was taken away"), "{}", reason.error);
            link.ended().await;
        }
        // As when an app server leaves: another one has the clients.
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
            assert_eq!(client.text().await, "{}", "this app server answers each hub handshake, also of such a client");
            let words = client.text().await;
            assert!(words.contains("\"type\":7") && words.contains("\"allowReconnect\":true"), "{words}");
        }
    });
}

#[test]
fn links_end_with_the_hub_that_their_key_opens_no_more_and_never_with_the_access_key() {
    run(async {
        let node = node_with(keys(&format!("shop={OLD};bench;shop"))).await;
        let mut of_app = DialInLink::open_by(OLD, &node, "home_1").await;
        let mut of_fleet = DialInLink::open(&node, "home_2", ONE).await;
        read_anew(&node, &format!("other={OLD};bench"));
        settle().await;
        let hub = node.stage.shared.hubs.keyed(HUB).unwrap();
        let open = || hub.pools().iter().map(|pool| pool.open()).sum::<usize>();
        assert_eq!(open(), 2, "the key is good for the hub as before");
        read_anew(&node, &format!("shop={OLD};shop"));
        until(SOON, "the hub is none of the key's", || open() == 1).await;
        of_app.ended().await;
        let client = of_fleet.client(&node, "ann").await;
        assert!(is_alive(&mut of_fleet, &client).await);
    });
}
