//! Timelines: any node shows the last hour of all nodes, and marks when nodes joined, drained, left or were lost.

use std::time::Duration;

use ::http::Request;
use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt;
use trunkline_protocol::manifest::HubManifest;

use super::client::Client;
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, nodes, peers};
use super::webhook_server::WebhookServer;
use super::webhooks::{APP, webhooks};
use crate::fleet::FromNode;
use crate::ground::config::Settings;
use crate::ground::net::connector::MemoryNetwork;

async fn ask(node: &FleetNode, target: &str) -> (u16, Value) {
    let mut request = Request::get(target).body(Body::empty()).unwrap();
    request.extensions_mut().insert(FromNode);
    let answer = node.api.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// Advances virtual time, so that nodes check each other and take samples.
async fn pass(seconds: u64) {
    // sleep: virtual time; samples follow the clock
    sleep(Duration::from_secs(seconds)).await;
}

async fn marks(node: &FleetNode) -> Vec<String> {
    let (_, told) = ask(node, "/api/timeline?scope=node").await;
    let marks = told["nodes"][0]["marks"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    marks.iter().map(|mark| ["party", "name", "change"].map(|key| text(&mark[key])).join(" ")).collect()
}

#[tokio::test(crate = "paused")]
async fn any_node_shows_the_figures_of_all_over_time() {
    let (_network, mut nodes) = nodes(2).await;
    let _client = nodes[1].client().await;
    pass(30).await;
    let (status, told) = ask(&nodes[0], "/api/timeline").await;
    assert_eq!((status, &told["stepMs"], &told["missing"]), (200, &10_000.into(), &Value::Array(Vec::new())));
    let of_nodes = told["nodes"].as_array().unwrap();
    assert_eq!(of_nodes.len(), 2);
    for (node, (name, clients)) in of_nodes.iter().zip([("n1", 0), ("n2", 1)]) {
        let samples = node["atMs"].as_array().unwrap().len();
        assert!(samples >= 3, "{node}");
        let levels = ["clients", "messagesUp", "deliveries", "links", "cpuPercent", "memoryBytes", "outboxBytes"];
        let events = ["opened", "closed", "refused", "callErrors", "roundTripMs"];
        for list in levels.into_iter().chain(events) {
            assert_eq!(node[list].as_array().map(Vec::len), Some(samples), "{list}: {node}");
        }
        let last = |list: &str| node[list][samples - 1].clone();
        assert_eq!((&node["name"], last("clients"), last("links")), (&name.into(), clients.into(), 1.into()));
    }
    let (_, own) = ask(&nodes[1], "/api/timeline?scope=node").await;
    assert_eq!(own["nodes"].as_array().unwrap().len(), 1);
    let (_, none) = ask(&nodes[1], &format!("/api/timeline?since={}", u64::MAX)).await;
    assert!(none["nodes"].as_array().unwrap().iter().all(|node| node["atMs"] == Value::Array(Vec::new())), "{none}");
    let (status, problem) = ask(&nodes[1], "/api/timeline?since=now").await;
    assert_eq!((status, &problem["field"]), (400, &"since".into()), "{problem}");
}

#[tokio::test(crate = "paused")]
async fn webhooks_count_neither_as_links_nor_as_app_servers() {
    let network = MemoryNetwork::default();
    let _server = WebhookServer::listen(&network, APP);
    let webhooks = webhooks(&[&format!("board={APP}/{{event}}")]);
    let node = FleetNode::start(&network, 1, Settings { webhooks, ..peers(&[]) }).await;
    pass(11).await;
    let (_, told) = ask(&node, "/api/timeline").await;
    assert_eq!(told["nodes"][0]["links"][0], 1, "{told}");
    assert!(!told["nodes"][0]["marks"].to_string().contains("webhook"), "{told}");
}

#[tokio::test(crate = "paused")]
async fn opens_ends_by_cause_and_refusals_are_in_the_last_hour() {
    let (_network, mut nodes) = nodes(2).await;
    pass(11).await;
    nodes[1].client().await.close().await;
    let refused = Client::upgrade(&nodes[1].fixture, "/nowhere").await;
    assert_eq!(refused.err(), Some(404));
    pass(20).await;
    let (_, told) = ask(&nodes[0], "/api/timeline").await;
    let node = &told["nodes"][1];
    let sum = |figure: &str, cause: Option<&str>| {
        let values = node[figure].as_array().unwrap().iter();
        values.filter_map(|value| cause.map_or(value, |cause| &value[cause]).as_f64()).sum::<f64>()
    };
    assert!(sum("opened", None) > 0.0, "{node}");
    assert!(sum("closed", Some("client_closed")) > 0.0, "{node}");
    assert!(sum("refused", Some("path_unknown")) > 0.0, "{node}");
    assert_eq!(sum("callErrors", None), 0.0);
}

#[tokio::test(crate = "paused")]
async fn a_node_that_gives_no_answer_is_named() {
    let (_network, nodes) = nodes(2).await;
    nodes[1].cut(true);
    let (_, told) = ask(&nodes[0], "/api/timeline").await;
    assert_eq!(told["missing"], serde_json::json!(["n2"]));
    assert_eq!(told["nodes"].as_array().unwrap().len(), 1);
}

#[tokio::test(crate = "paused")]
async fn a_node_that_stops_within_a_moment_has_left_and_is_not_lost() {
    let (_network, nodes) = nodes(2).await;
    pass(20).await;
    nodes[1].fixture.shared.begin_drain();
    nodes[1].fleet.members().leave().await;
    pass(3).await;
    assert_eq!(marks(&nodes[0]).await, ["node n1 came", "node n2 drains", "node n2 left"]);
}

#[tokio::test(crate = "paused")]
async fn nodes_and_app_servers_that_come_stop_and_die_are_marked() {
    let (network, nodes) = nodes(3).await;
    pass(20).await;
    assert_eq!(marks(&nodes[0]).await, ["node n1 came"], "those that it has met at its start are no news");
    let mut app = nodes[0].fixture.app("app-x", vec![HubManifest::new("news", "/news")]);
    let link = app.link().await;
    pass(2).await;
    app.retire();
    drop(link);
    pass(2).await;
    nodes[1].fixture.shared.begin_drain();
    pass(3).await;
    nodes[1].fleet.members().leave().await;
    pass(3).await;
    let stopped = ["node n1 came", "app app-x came", "app app-x lost", "node n2 drains", "node n2 left"];
    assert_eq!(marks(&nodes[0]).await, stopped);
    nodes[2].kill(&network);
    pass(60).await;
    let all = marks(&nodes[0]).await;
    assert_eq!(
        (&all[..stopped.len()], all.last().unwrap().as_str()),
        (&stopped.map(str::to_owned)[..], "node n3 lost")
    );
    assert!(all.iter().skip(stopped.len()).all(|mark| mark.starts_with("node n3 ")), "{all:?}");
}
