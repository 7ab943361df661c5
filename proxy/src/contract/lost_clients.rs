//! Clients of lost nodes: another node reports their ends to the back end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Client, Received};
use super::fixture::{paused, token_of};
use super::fleet_nodes::{FleetNode, linked, peers};
use super::webhook_server::WebhookServer;
use super::webhooks::{APP, connect};
use crate::ground::config::{Settings, WebhookSettings};
use crate::ground::net::connector::MemoryNetwork;
use crate::node::presence_keeper;

/// Time after which nodes count as settled, and pending events must have been sent.
const LONG: Duration = Duration::from_secs(40);

/// Number of `disconnected`, as documented.
const LAST: &str = "9007199254740991";

/// ClientEvent of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ClientEvent {
    name: String,
    user: String,
    id: String,
    number: String,
    body: String,
}

async fn node(network: &MemoryNetwork, number: u8, reports_lost_clients: bool) -> (FleetNode, AbortHandle) {
    let rules = vec!["room=http://app.example:5000/{hub}/{category}/{event}".parse().unwrap()];
    let webhooks = WebhookSettings { rules, reports_lost_clients, ..WebhookSettings::DEFAULT };
    let node = FleetNode::start(network, number, Settings { webhooks, ..peers(&[1, 2, 3]) }).await;
    let (shared, webhooks) = (node.fixture.shared.clone(), node.fixture.webhooks.clone());
    let keeper = tokio::spawn(presence_keeper::run(shared, webhooks, node.fleet.clone()));
    (node, keeper.abort_handle())
}

async fn enter(node: &FleetNode, user: &str) -> Client {
    connect(&node.fixture, &format!("/room?access_token={}", token_of(user))).await
}

/// Accepts the events within this time, and returns them.
async fn seen(server: &mut WebhookServer, within: Duration) -> Vec<ClientEvent> {
    let (mut seen, end) = (Vec::new(), Instant::now() + within);
    while let Ok(asked) = timeout_at(end, server.next()).await {
        let header = |name: &str| asked.header(name).to_owned();
        let [name, user, id, number] =
            ["x-asrs-event", "x-asrs-user-id", "x-asrs-connection-id", "x-trunkline-event-number"].map(header);
        assert_eq!(asked.path(), format!("/room/connections/{name}"));
        seen.push(ClientEvent { name, user, id, number, body: asked.text().to_owned() });
        asked.answer(204, "");
    }
    seen
}

fn ids(events: &[ClientEvent]) -> BTreeMap<String, String> {
    events.iter().map(|event| (event.user.clone(), event.id.clone())).collect()
}

fn kill(node: &FleetNode, keeper: &AbortHandle, network: &MemoryNetwork) {
    keeper.abort();
    node.kill(network);
}

#[tokio::test(crate = "paused")]
async fn the_clients_of_a_killed_node_are_reported_by_one_node_and_again_if_that_is_lost() {
    super::fleet_nodes::by_network();
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let mut nodes = Vec::new();
    let mut keepers = Vec::new();
    for number in 1..=3 {
        let (node, keeper) = node(&network, number, true).await;
        nodes.push(node);
        keepers.push(keeper);
    }
    linked(&nodes).await;
    let living = enter(&nodes[0], "living").await;
    let left = enter(&nodes[2], "left").await;
    let mut killed = Vec::new();
    for number in 0..12 {
        killed.push(enter(&nodes[2], &format!("killed-{number}")).await);
    }
    let connected = ids(&seen(&mut server, LONG).await);
    assert_eq!(connected.len(), 14);
    left.close().await;
    let ends = seen(&mut server, LONG).await;
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!((&*ends[0].user, &*ends[0].number, &*ends[0].body), ("left", LAST, "{\"type\":11}"));
    kill(&nodes[2], &keepers[2], &network);
    let mut lost = seen(&mut server, LONG).await;
    lost.sort();
    let expected: BTreeMap<_, _> =
        connected.clone().into_iter().filter(|(user, _)| user.starts_with("killed")).collect();
    assert_eq!((lost.len(), ids(&lost)), (12, expected), "each once: {lost:?}");
    for end in &lost {
        let body = "{\"type\":11,\"error\":\"The node of the client was lost.\"}";
        assert_eq!((&*end.name, &*end.number, &*end.body), ("disconnected", LAST, body));
    }
    kill(&nodes[1], &keepers[1], &network);
    let again: BTreeSet<_> = seen(&mut server, LONG).await.into_iter().collect();
    assert!(!again.is_empty() && again.iter().all(|end| lost.contains(end)), "{again:?}");
    living.close().await;
    let ends = seen(&mut server, 3 * LONG).await;
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!((&*ends[0].user, &*ends[0].number), ("living", LAST));
}

#[tokio::test(crate = "paused")]
async fn after_a_split_the_clients_that_were_reported_are_closed_and_may_connect_again() {
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let (one, two) = (node(&network, 1, true).await.0, node(&network, 2, true).await.0);
    let nodes = [one, two];
    linked(&nodes).await;
    let mut clients = vec![enter(&nodes[0], "at-1").await, enter(&nodes[1], "at-2").await];
    let connected = ids(&seen(&mut server, LONG).await);
    nodes.iter().for_each(|node| node.cut(true));
    let reported = seen(&mut server, 3 * LONG).await;
    assert_eq!((reported.len(), ids(&reported)), (2, connected.clone()), "{reported:?}");
    let later = enter(&nodes[0], "later").await;
    nodes.iter().for_each(|node| node.cut(false));
    linked(&nodes).await;
    let ends = seen(&mut server, LONG).await;
    for client in &mut clients {
        assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
        assert!(matches!(client.next().await, Received::End(_)));
    }
    let (came, ended): (Vec<_>, Vec<_>) = ends.into_iter().partition(|event| event.name == "connected");
    assert_eq!((came.len(), ids(&ended)), (1, connected), "the new client stays: {ended:?}");
    assert!(ended.iter().all(|end| end.number == LAST), "the back end can drop the repetition");
    later.close().await;
    assert_eq!(seen(&mut server, LONG).await.len(), 1);
}

#[tokio::test(crate = "paused")]
async fn a_short_absence_of_a_node_closes_no_client() {
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let (one, two) = (node(&network, 1, true).await.0, node(&network, 2, true).await.0);
    let nodes = [one, two];
    linked(&nodes).await;
    let client = enter(&nodes[0], "at-1").await;
    assert_eq!(seen(&mut server, LONG).await.len(), 1);
    nodes.iter().for_each(|node| node.cut(true));
    sleep(Duration::from_secs(5)).await; // sleep: virtual time, shorter than the time until a node is removed
    nodes.iter().for_each(|node| node.cut(false));
    linked(&nodes).await;
    assert_eq!(seen(&mut server, LONG).await, []);
    client.close().await;
    assert_eq!(seen(&mut server, LONG).await.len(), 1);
}

#[tokio::test(crate = "paused")]
async fn a_node_without_the_flag_neither_reports_clients_nor_has_its_own_reported() {
    super::fleet_nodes::by_network();
    let network = MemoryNetwork::default();
    let mut server = WebhookServer::listen(&network, APP);
    let (one, _keeper) = node(&network, 1, true).await;
    let (without, keeper_2) = node(&network, 2, false).await;
    let (three, keeper_3) = node(&network, 3, true).await;
    let nodes = [one, without, three];
    linked(&nodes).await;
    let _clients = [enter(&nodes[1], "without").await, enter(&nodes[2], "with").await];
    assert_eq!(seen(&mut server, LONG).await.len(), 2);
    kill(&nodes[2], &keeper_3, &network);
    let ends = seen(&mut server, LONG).await;
    assert_eq!(ends.iter().map(|end| &*end.user).collect::<Vec<_>>(), ["with"]);
    kill(&nodes[1], &keeper_2, &network);
    assert_eq!(seen(&mut server, LONG).await, []);
}
