//! Server-Sent Events and long polling with requests to any node other than the owner of the connection.

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;
use trunkline_generator::memory::Resident;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::balancer::{Balancer, Rule};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::http_client::{ask, post};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, run_test};

use crate::http_transports::libraries::{CARRIED, WAYS};
use crate::order::flood_and_check;

const HOPS: &str = "trunkline_owner_hops_total";
const MISSES: &str = "trunkline_owner_hop_misses_total";
const FAILURES: &str = "trunkline_owner_hop_failures_total";
const MARKS_REFUSED: &str = "trunkline_forward_marks_refused_total";

const MESSAGES: u64 = 1_000;
const MESSAGES_FULL: u64 = 10_000;

const LARGE_BYTES: usize = 1 << 20;
const LARGE_MEMORY_MAX_BYTES: u64 = 2 << 20;

const CONNECTS: usize = 20;

async fn count(proxy: &Proxy, name: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum(name, &[]))
}

#[test]
fn numbered_messages_through_the_wrong_node_come_in_order_none_lost_none_twice() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let [owner, other] = fleet.two_proxies(&app).await?;
        let balancer = Balancer::start(Rule::Apart, &[owner.address(), other.address()]).await?;
        let agents = Agents::new(fixture);
        let messages = if is_full() { MESSAGES_FULL } else { MESSAGES };
        for (kind, transport) in WAYS {
            let builder = agents.client(kind, &balancer.url("/bench")).transport(transport);
            let client = builder.count(&["Echoed"]).open().await?;
            let before = count(&other, HOPS).await?;
            flood_and_check(&client, messages).await?;
            assert!(count(&other, HOPS).await? > before, "{kind:?} over {transport:?}");
        }
        assert_eq!((count(&other, MISSES).await?, count(&other, FAILURES).await?), (0.0, 0.0));
        assert_eq!(count(&owner, HOPS).await?, 0.0, "nothing is carried twice");
        Ok(())
    });
}

#[test]
fn a_large_message_passes_the_wrong_node_without_being_kept_there() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Functional).await?;
        let [owner, other] = fleet.two_proxies(&app).await?;
        let balancer = Balancer::start(Rule::Apart, &[owner.address(), other.address()]).await?;
        let agents = Agents::new(fixture);
        for transport in CARRIED {
            let builder = agents.connection(&balancer.url("/echo")).transport(transport.name());
            let mut connection = builder.open().await?;
            // The first exchange has one-time costs.
            connection.send(json!({ "text": "small" })).await?;
            connection.receive().await?;
            let before = Resident::of(other.process.id()?)?.peak_bytes;
            let large: String = (0..LARGE_BYTES / 8).map(|number| format!("{number:8}")).collect();
            connection.send(json!({ "text": large })).await?;
            // A raw endpoint may echo a message in pieces.
            let mut echoed = String::new();
            while echoed.len() < large.len() {
                echoed += connection.receive().await?["text"].as_str().context("no text")?;
            }
            assert!(echoed == large, "it came back as another one, over {transport:?}");
            let grown = Resident::of(other.process.id()?)?.peak_bytes - before;
            assert!(grown < LARGE_MEMORY_MAX_BYTES, "over {transport:?} it took {grown} bytes of memory");
        }
        assert!(count(&other, HOPS).await? > 0.0);
        Ok(())
    });
}

#[test]
fn what_the_first_node_has_settled_of_a_request_counts_at_its_owner() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        // The prefix also occurs in the hub's own path. It is removed once.
        let more = ["--trust", "127.0.0.1", "--path-prefix", "/bench"];
        let owner = fleet.proxy_with(&[&app], &more).await?;
        let other = fleet.proxy_with(&[&app], &more).await?;
        let balancer = Balancer::start(Rule::Apart, &[owner.address(), other.address()]).await?;
        let agents = Agents::new(fixture);
        for transport in CARRIED {
            let builder = agents.client(Kind::JsJson, &balancer.url("/bench/bench")).transport(transport);
            let client = builder.headers(json!({ "x-forwarded-for": "203.0.113.9" })).open().await?;
            let me = client.invoke("WhoAmI", json!([])).await?;
            assert_eq!(me["remoteAddress"], "203.0.113.9:0", "over {transport:?}");
        }
        assert!(count(&other, HOPS).await? > 0.0);
        assert_eq!(count(&owner, MARKS_REFUSED).await?, 0.0);
        Ok(())
    });
}

#[test]
fn a_client_negotiates_anew_when_its_owner_dies() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let [mut owner, other] = fleet.two_proxies(&app).await?;
        let balancer = Balancer::start(Rule::Apart, &[owner.address(), other.address()]).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for transport in CARRIED {
            let builder = agents.client(Kind::JsJson, &balancer.url("/bench")).transport(transport);
            let builder = builder.reconnect_after_ms(&[0]).reconnect_to(&other.url("/bench"));
            clients.push(builder.open().await?);
        }
        owner.process.kill().await?;
        for client in &mut clients {
            client.reconnected().await?;
            assert_eq!(client.invoke("Echo", json!([1])).await?, 1);
        }
        Ok(())
    });
}

#[test]
fn an_owner_that_stands_still_is_given_up() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let impatient = ["--hop-timeout", "1", "--poll-timeout", "1"];
        let owner = fleet.proxy_with(&[&app], &impatient).await?;
        let other = fleet.proxy_with(&[&app], &impatient).await?;
        let client = CarriedClient::negotiate(owner.address(), "/bench").await?;
        // An open connection between the nodes remains open.
        assert_eq!(ask(other.address(), Method::DELETE, client.path(), &[]).await?.status, 404);
        owner.process.signal(Signal::Freeze).await?;
        let events = [("accept", "text/event-stream")];
        for (method, headers) in
            [(Method::GET, &[][..]), (Method::GET, &events), (Method::POST, &[]), (Method::DELETE, &[])]
        {
            let answer = ask(other.address(), method, client.path(), headers).await?;
            assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, "No Connection with that ID"));
        }
        assert_eq!((count(&other, FAILURES).await?, count(&other, HOPS).await?), (4.0, 5.0));
        assert_eq!(post(other.address(), "/bench/negotiate?negotiateVersion=1").await?.status, 200);
        Ok(())
    });
}

#[test]
fn three_nodes_take_turns_request_by_request_and_every_transport_connects_at_once() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let nodes = [fleet.proxy(&app).await?, fleet.proxy(&app).await?, fleet.proxy(&app).await?];
        let addresses = nodes.each_ref().map(Proxy::address);
        let balancer = Balancer::start(Rule::InTurn, &addresses).await?;
        let agents = Agents::new(fixture);
        let sum = async |name: &str| -> Result<f64> {
            let mut sum = 0.0;
            for node in &nodes {
                sum += count(node, name).await?;
            }
            Ok(sum)
        };
        let sockets = Kind::JS.map(|kind| (kind, Transport::WebSockets));
        for (kind, transport) in sockets.into_iter().chain(WAYS) {
            let (hops, requests) = (sum(HOPS).await?, balancer.requests());
            for _ in 0..CONNECTS {
                let mut client = agents.client(kind, &balancer.url("/bench")).transport(transport).open().await?;
                assert_eq!(client.invoke("Echo", json!([1])).await?, 1);
                client.close().await?;
            }
            let (hops, requests) = (sum(HOPS).await? - hops, balancer.requests() - requests);
            if transport == Transport::WebSockets {
                assert_eq!(hops, 0.0);
            } else {
                // Negotiations belong to no connection, so they need no hop.
                assert!(hops > 0.0 && hops <= (requests - CONNECTS) as f64, "{hops} hops for {requests} requests");
            }
        }
        assert_eq!(sum(FAILURES).await?, 0.0);
        Ok(())
    });
}
