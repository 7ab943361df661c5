//! Rebalances: which and how many clients are asked to reconnect, how a rebalance ends, and that only one runs at a
//! time.

use std::time::Duration;

use ::http::Request;
use ::http::header::CONTENT_TYPE;
use axum::body::Body;
use axum::extract::Request as AxumRequest;
use axum::middleware::{Next, from_fn};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use trunkline_protocol::manifest::CAUSE_HEADER;

use super::client::{Client, PING, Received};
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, linked, nodes, peers};
use super::scene::shop;
use crate::fleet::FromNode;
use crate::ground::metrics::MoveCause;
use crate::ground::net::connector::MemoryNetwork;

/// Sends a request with permission for actions to a node's API.
async fn ask(node: &FleetNode, method: &str, target: &str, body: Value) -> (u16, Value) {
    ask_as(node, method, target, body, true).await
}

async fn ask_as(node: &FleetNode, method: &str, target: &str, body: Value, may_act: bool) -> (u16, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(target).header(CONTENT_TYPE, "application/json");
    let mut request = request.body(body).unwrap();
    if may_act {
        request.extensions_mut().insert(FromNode);
    }
    let answer = node.api.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn begin(node: &FleetNode, body: Value) -> Value {
    let (status, report) = ask(node, "POST", "/api/rebalance", body).await;
    assert_eq!(status, 200, "{report}");
    report
}

async fn progress(node: &FleetNode) -> Value {
    ask(node, "GET", "/api/rebalance", Value::Null).await.1
}

/// Waits until the rebalance is over, and returns its result.
async fn ended(node: &FleetNode) -> Value {
    let last = Instant::now() + Duration::from_secs(120);
    loop {
        let report = progress(node).await;
        if report["state"] != "running" {
            return report;
        }
        assert!(Instant::now() < last, "it does not end: {report}");
        sleep(Duration::from_millis(500)).await; // sleep: virtual time; no event signals the state
    }
}

async fn clients_of(node: &mut FleetNode, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(node.client().await);
    }
    clients
}

/// Waits until the node has closed this many clients because of a rebalance.
async fn closed(node: &mut FleetNode, count: usize) {
    for _ in 0..count {
        let close = node.link.close().await;
        let mut headers = close.headers.iter();
        assert!(headers.any(|(name, values)| name == CAUSE_HEADER && values[0] == "rebalanced"), "{close:?}");
    }
}

/// Reads until the client's socket ends; `true` if the client was asked to reconnect.
async fn is_told_to_reconnect(client: &mut Client) -> bool {
    let mut is_reported = false;
    loop {
        match client.next().await {
            Received::Text(text) => is_reported |= text == "{\"type\":7,\"allowReconnect\":true}",
            Received::End(_) => return is_reported,
            _ => {}
        }
    }
}

#[tokio::test(crate = "paused")]
async fn clients_leave_the_fullest_node_for_the_others_until_all_have_as_many() {
    let (_network, mut nodes) = nodes(2).await;
    let mut clients = clients_of(&mut nodes[0], 10).await;
    // Any node can coordinate.
    let report = begin(&nodes[1], json!({ "to": "mean", "per_second": 2 })).await;
    assert_eq!((&report["planned"], &report["state"], &report["node"]), (&json!(5), &json!("running"), &json!("n2")));
    let begun = Instant::now();
    let mut back = Vec::new();
    for _ in 0..5 {
        closed(&mut nodes[0], 1).await;
        back.push(nodes[1].client().await);
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "two in a second: {:?}", begun.elapsed());
    let end = ended(&nodes[0]).await;
    assert_eq!((&end["state"], &end["moved"], &end["failed"]), (&json!("done"), &json!(5), &json!(0)), "{end}");
    nodes[0].link.fence().await;
    let mut told = 0;
    for client in clients.drain(..5) {
        told += usize::from(is_told_to_reconnect(&mut { client }).await);
    }
    assert_eq!(told, 5, "the first five were told to connect again");
}

#[tokio::test(crate = "paused")]
async fn a_node_that_has_just_started_asks_the_others_before_it_plans() {
    let network = MemoryNetwork::default();
    let mut old = FleetNode::start(&network, 1, peers(&[1, 2])).await;
    let _clients = clients_of(&mut old, 18).await;
    let new = FleetNode::start(&network, 2, peers(&[1, 2])).await;
    for node in [&new, &old] {
        let plan = begin(node, json!({ "to": "mean", "dry_run": true })).await;
        assert_eq!((&plan["planned"], &plan["missing"]), (&json!(9), &json!([])), "{plan}");
    }
}

#[tokio::test(crate = "paused")]
async fn fresh_numbers_are_current_and_have_an_age() {
    let (_network, mut nodes) = nodes(2).await;
    let clients = async |nodes: &[FleetNode], target: &str| {
        let fleet = ask(&nodes[1], "GET", target, Value::Null).await.1;
        let told = &fleet["nodes"][0];
        assert!(told["ageMs"].as_u64().unwrap() < 500 && fleet["missing"] == json!([]), "{fleet}");
        told["clients"].as_u64().unwrap()
    };
    assert_eq!(clients(&nodes, "/api/fleet").await, 0);
    let _clients = clients_of(&mut nodes[0], 3).await;
    assert_eq!(clients(&nodes, "/api/fleet?fresh=1").await, 3);
    let (status, refusal) = ask(&nodes[0], "GET", "/api/fleet?fresh=yes", Value::Null).await;
    assert_eq!((status, &refusal["field"]), (400, &json!("fresh")));
}

#[tokio::test(crate = "paused")]
async fn a_node_without_numbers_is_named() {
    async fn silent_once_it_has_told(request: AxumRequest, next: Next) -> axum::response::Response {
        match request.uri().query() {
            Some(query) if query.contains("fresh") => std::future::pending().await,
            _ => next.run(request).await,
        }
    }
    let network = MemoryNetwork::default();
    let all = [1, 2, 3];
    let asked = FleetNode::start(&network, 1, peers(&all)).await;
    let silent = |api: axum::Router| api.layer(from_fn(silent_once_it_has_told));
    let silent = FleetNode::start_with(&network, 2, peers(&all), silent).await;
    let third = FleetNode::start(&network, 3, peers(&all)).await;
    let mut nodes = [asked, silent, third];
    linked(&nodes).await;
    let dry_run = json!({ "to": "mean", "dry_run": true });
    // The node has reported no numbers, so it is excluded, and a plan without clients is not a success.
    let plan = begin(&nodes[0], json!({ "to": "mean" })).await;
    assert_eq!((&plan["planned"], &plan["state"]), (&json!(0), &json!("stalled")), "{plan}");
    let problem = "has not asked its clients to reconnect within 2 s";
    assert!(plan["reason"].as_str().unwrap().ends_with(&format!("n2 {problem}")), "{plan}");
    let _clients = (clients_of(&mut nodes[1], 4).await, clients_of(&mut nodes[2], 8).await);
    let plan = begin(&nodes[0], dry_run.clone()).await;
    let unknown = json!([{ "node": "n2", "problem": problem, "age_ms": null }]);
    assert_eq!((&plan["planned"], &plan["missing"]), (&json!(4), &unknown), "of n1 and n3: {plan}");
    // Earlier reported numbers count, with their age.
    ask(&nodes[0], "GET", "/api/fleet", Value::Null).await;
    let plan = begin(&nodes[0], dry_run).await;
    assert_eq!(plan["planned"], 4, "the mean of all is 4: {plan}");
    let age_ms = plan["missing"][0]["age_ms"].as_u64().unwrap();
    assert!((2_000..2_500).contains(&age_ms), "{plan}");
}

#[tokio::test(crate = "paused")]
async fn a_client_that_comes_back_to_its_node_is_sent_elsewhere_again() {
    let (_network, mut nodes) = nodes(2).await;
    let mut clients = clients_of(&mut nodes[0], 4).await;
    begin(&nodes[0], json!({ "to": "mean" })).await;
    closed(&mut nodes[0], 2).await;
    // One client returns to its old node.
    clients.push(nodes[0].client().await);
    clients.push(nodes[1].client().await);
    closed(&mut nodes[0], 1).await;
    clients.push(nodes[1].client().await);
    let end = ended(&nodes[0]).await;
    assert_eq!((&end["state"], &end["moved"], &end["failed"]), (&json!("done"), &json!(2), &json!(1)), "{end}");
}

#[tokio::test(crate = "paused")]
async fn stateful_clients_leave_first_and_without_a_goodbye() {
    let (_network, mut nodes) = nodes(2).await;
    let _plain = clients_of(&mut nodes[0], 2).await;
    let mut old = nodes[0].fixture.server_with("shop-1", shop()).await;
    let _new = nodes[1].fixture.server_with("shop-1", shop()).await;
    let mut stateful = Vec::new();
    for _ in 0..2 {
        stateful.push(Client::connect_stateful(&nodes[0].fixture, &mut old, "/shop").await.0);
    }
    begin(&nodes[0], json!({ "to": "node", "node": "n1", "per_second": 2 })).await;
    for client in &mut stateful {
        loop {
            match client.next().await {
                Received::Text(text) => assert!(text == PING || text.starts_with("{\"type\":9"), "{text}"),
                end => break assert_eq!(end, Received::End(None), "without a goodbye"),
            }
        }
    }
    let shared = &nodes[0].fixture.shared;
    assert_eq!(shared.counters()[0].away.get(), 2);
    assert_eq!(shared.counters()[0].moved_out.of(MoveCause::Rebalance).get(), 0, "they are not elsewhere yet");
    closed(&mut nodes[0], 2).await;
}

#[tokio::test(crate = "paused")]
async fn a_dry_run_only_counts_and_one_rebalance_runs_at_a_time() {
    let (_network, mut nodes) = nodes(3).await;
    let _clients = clients_of(&mut nodes[0], 9).await;
    assert_eq!(progress(&nodes[0]).await["state"], "idle");
    let plan = begin(&nodes[1], json!({ "to": "mean", "dry_run": true })).await;
    assert_eq!((&plan["planned"], &plan["state"]), (&json!(6), &json!("planned")));
    let some = begin(&nodes[1], json!({ "to": "percent", "percent": 50, "dry_run": true })).await;
    assert_eq!(some["planned"], 5);
    nodes[0].link.fence().await;
    let none = ask(&nodes[0], "DELETE", "/api/rebalance", Value::Null).await;
    assert_eq!((none.0, &none.1["error"]), (404, &json!("no rebalance runs in the fleet")));

    let running = begin(&nodes[1], json!({ "to": "mean", "per_second": 1 })).await;
    for node in &nodes {
        let (status, refusal) = ask(node, "POST", "/api/rebalance", json!({ "to": "mean" })).await;
        let text = refusal["error"].as_str().unwrap().to_owned();
        assert!(status == 409 && text.contains("is already running, at n2"), "{status} {text}");
        assert_eq!(progress(node).await["id"], running["id"]);
    }
    let (status, stopped) = ask(&nodes[2], "DELETE", "/api/rebalance", Value::Null).await;
    assert_eq!((status, &stopped["id"], &stopped["state"]), (200, &running["id"], &json!("stopped")));
    assert_eq!(progress(&nodes[0]).await["reason"], "stopped by an operator");
    begin(&nodes[2], json!({ "to": "mean", "dry_run": true })).await;
}

#[tokio::test(crate = "paused")]
async fn what_can_not_be_done_is_refused_by_the_name_of_its_field() {
    let (_network, nodes) = nodes(2).await;
    let (status, refusal) = ask(&nodes[0], "POST", "/api/rebalance", json!({ "to": "node", "node": "n7" })).await;
    let text = "node must be a node of the fleet that accepts clients: n1, n2";
    assert_eq!((status, refusal), (400, json!({ "error": text, "field": "node" })));
    let large = json!({ "to": "x".repeat(5000) });
    assert_eq!(ask(&nodes[0], "POST", "/api/rebalance", large).await.0, 413);
    let even = begin(&nodes[0], json!({ "to": "mean" })).await;
    assert_eq!((&even["state"], &even["planned"]), (&json!("done"), &json!(0)));
    for (method, target) in [("POST", "/api/rebalance"), ("DELETE", "/api/rebalance"), ("POST", "/api/rebalance/shed")]
    {
        let (status, _) = ask_as(&nodes[0], method, target, json!({ "to": "mean", "clients": 5 }), false).await;
        assert_ne!(status, 200, "{method} {target} without the token");
    }
}

#[tokio::test(crate = "paused")]
async fn a_rebalance_ends_with_the_node_that_coordinates_it() {
    let (_network, mut nodes) = nodes(3).await;
    let _clients = clients_of(&mut nodes[0], 9).await;
    begin(&nodes[1], json!({ "to": "mean", "per_second": 1 })).await;
    nodes[1].fixture.shared.begin_drain();
    let end = ended(&nodes[1]).await;
    assert_eq!((&end["state"], &end["reason"]), (&json!("stopped"), &json!("the coordinating node stops")));
    let again = begin(&nodes[2], json!({ "to": "mean", "dry_run": true })).await;
    assert_eq!(again["state"], "planned", "the others take another one");
}
