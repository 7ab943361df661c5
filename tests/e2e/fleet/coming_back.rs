//! Stateful reconnect with the official client: sockets break and nodes stop, unnoticed by the app.

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::response::Html;
use axum::routing::get as serve_get;
use futures_util::future::try_join_all;
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tokio::net::TcpListener;
use trunkline_tests::harness::balancer::{Balancer, Rule};
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT};
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, Kind};
use trunkline_tests::harness::fleet::{App, stop};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{Fixture, is_full, run_heavy_test, until};
use trunkline_tests::harness::shipped::{BalancerProduct, Shipped};

use super::{ADMIN_TOKEN, FleetScene, NAMES, shows};

/// Number of times that all sockets are cut; the long version has four times as many.
const CUTS: u64 = 50;

/// Messages of each client to the hub and back, around a cut.
const MESSAGES: u64 = 40;

const CLIENTS: usize = 3;

/// Clients of each hub protocol in a rolling restart, and in its long version.
const ROLLED: usize = 10;
const ROLLED_FULL: usize = 300;

/// Delays between the attempts of a client that was asked to reconnect.
const RETRIES_MS: [u64; 6] = [0, 100, 500, 1_000, 2_000, 4_000];

/// Three nodes behind a round-robin balancer, with a relay in front.
struct Scene<'a> {
    fleet: FleetScene<'a>,
    _balancer: Balancer,
    relay: Relay,
}

impl<'a> Scene<'a> {
    async fn open(fixture: &'a Fixture) -> Result<Self> {
        let fleet = FleetScene::begin_with(fixture, &["--stateful"], &NAMES, &[]).await?;
        fleet.agrees(&NAMES).await?;
        let nodes: Vec<_> = fleet.nodes.iter().map(|node| node.address()).collect();
        let balancer = Balancer::start(Rule::InTurn, &nodes).await?;
        let relay = Relay::start_for(b"GET /bench", balancer.address()).await?;
        Ok(Self { fleet, _balancer: balancer, relay })
    }

    async fn clients(&self, agents: &Agents<'_>) -> Result<Vec<Client>> {
        let url = format!("http://{}/bench", self.relay.address());
        let mut clients = Vec::new();
        for kind in Kind::JS {
            for _ in 0..CLIENTS {
                let client = agents.client(kind, &url).stateful().count(&["Echoed", "Tick"]).open().await?;
                client.invoke("Join", json!(["all"])).await?;
                clients.push(client);
            }
        }
        Ok(clients)
    }

    async fn total(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let mut total = 0.0;
        for node in &self.fleet.nodes {
            total += Metrics::of(node.admin()).await?.sum(name, labels);
        }
        Ok(total)
    }
}

async fn converse(client: &Client, from: u64, count: u64) -> Result<()> {
    client.flood("EchoBack", from, count).await?;
    let echoed = client.sequence("Echoed", from + count - 1).await?;
    ensure!(echoed.broken.is_none(), "{:?}: {echoed:?}", client.kind());
    Ok(())
}

/// Checks that each client has received everything, once and in order, without an interruption.
async fn are_whole(clients: &[Client], echoes: u64) -> Result<()> {
    for client in clients {
        client.is_undisturbed().await?;
        // Everything sent before this answer has arrived.
        client.invoke("Echo", json!([0])).await?;
        let echoed = client.sequence("Echoed", echoes).await?;
        assert_eq!((echoed.received, echoed.first, echoed.broken), (echoes, Some(1), None), "{:?}", client.kind());
        let ticks = client.sequence("Tick", 1).await?;
        assert_eq!(ticks.broken, None, "{:?}", client.kind());
    }
    Ok(())
}

#[test]
fn sockets_that_are_cut_all_the_time_lose_nothing_and_nobody_notices() {
    run_heavy_test(async |fixture| {
        let scene = Scene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let clients = scene.clients(&agents).await?;
        clients[0].invoke("StartTicks", json!([5, 64])).await?;
        let cuts = if is_full() { 4 * CUTS } else { CUTS };
        for cut in 0..cuts {
            let talking = clients.iter().map(|client| converse(client, cut * MESSAGES + 1, MESSAGES));
            let (talked, ()) = tokio::join!(try_join_all(talking), async {
                scene.relay.decide(if cut % 2 == 0 { Fate::CutInPiece } else { Fate::Cut }, usize::MAX);
            });
            talked?;
        }
        clients[0].invoke("StopTicks", json!([])).await?;
        are_whole(&clients, cuts * MESSAGES).await?;
        let resumed = scene.total("trunkline_connections_resumed_total", &[]).await?;
        ensure!(resumed >= cuts as f64, "{resumed} of {cuts} cuts");
        let [gone, come] = [("direction", "out"), ("direction", "in")];
        let moved = scene.total("trunkline_connections_moved_total", &[come]).await?;
        ensure!(moved >= cuts as f64 / 2.0, "the balancer takes turns: {moved} of {resumed} at another node");
        until(async || {
            let out = scene.total("trunkline_connections_moved_total", &[gone]).await?;
            Ok((out >= moved).then_some(()))
        })
        .await?;
        assert_eq!(scene.total("trunkline_client_connections_closed_total", &[]).await?, 0.0);
        Ok(())
    });
}

/// Streams, uploads and client results across each cut.
async fn call_all_ways(client: &Client, cut: u64) -> Result<()> {
    const ITEMS: u64 = 500;
    let numbers: Vec<_> = (1..=ITEMS).collect();
    let upload = client.upload(&format!("numbers-{cut}")).await?;
    let feeding = async {
        for piece in numbers.chunks(50) {
            upload.feed(json!(piece)).await?;
        }
        upload.complete().await
    };
    let (streamed, answered, sum, ()) = tokio::try_join!(
        client.stream("CountTo", json!([ITEMS])),
        client.invoke("AskMe", json!(["Question"])),
        client.invoke("AddUp", json!([upload.argument(), 0])),
        feeding,
    )?;
    let counted: Vec<_> = numbers.iter().map(|number| json!(number)).collect();
    ensure!((streamed.items, streamed.error) == (counted, None), "a stream that was cut is not whole");
    ensure!((answered, sum) == (json!(42), json!(numbers.iter().sum::<u64>())), "a call that was cut");
    Ok(())
}

#[test]
fn streams_uploads_and_questions_go_on_over_cut_sockets() {
    run_heavy_test(async |fixture| {
        let fleet = FleetScene::begin_before(fixture, (App::Calls, &["--stateful"]), &NAMES, &[]).await?;
        fleet.agrees(&NAMES).await?;
        let nodes: Vec<_> = fleet.nodes.iter().map(|node| node.address()).collect();
        let balancer = Balancer::start(Rule::InTurn, &nodes).await?;
        let relay = Relay::start_for(b"GET /calls", balancer.address()).await?;
        let (agents, url) = (Agents::new(fixture), format!("http://{}/calls", relay.address()));
        let mut clients = Vec::new();
        for kind in Kind::JS {
            let builder = agents.client(kind, &url).stateful().subscribe(&["Announced"]);
            let client = builder.answer("Question", &ClientAnswer::Value(json!(42))).open().await?;
            client.invoke("Remember", json!(["me"])).await?;
            client.invoke("Join", json!(["all"])).await?;
            clients.push(client);
        }
        for cut in 0..if is_full() { 4 * CUTS } else { CUTS / 2 } {
            let calling = clients.iter().map(|client| call_all_ways(client, cut));
            let (called, ()) = tokio::join!(try_join_all(calling), async {
                relay.decide(if cut % 2 == 0 { Fate::CutInPiece } else { Fate::Cut }, usize::MAX);
            });
            called?;
        }
        clients[0].invoke("SendToGroup", json!(["all", "still here"])).await?;
        for client in &mut clients {
            client.is_undisturbed().await?;
            let announced = loop {
                // Client result requests are also reported as messages.
                let message = client.next().await?;
                if message.target == "Announced" {
                    break message.arguments;
                }
            };
            assert_eq!(announced, [json!("still here")]);
            assert_eq!(client.invoke("Recall", json!([])).await?, json!("me"));
        }
        Ok(())
    });
}

#[test]
fn a_page_in_a_browser_goes_on_over_cut_sockets() {
    run_heavy_test(async |fixture| {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let page_origin = format!("http://{}", listener.local_addr()?);
        let script = std::fs::read_to_string(OFFICIAL_SCRIPT)?;
        let script = || async { ([(CONTENT_TYPE, "text/javascript")], script) };
        let page = || async { Html(include_str!("counting_page.html")) };
        let router = Router::new().route("/signalr.js", serve_get(script)).route("/", serve_get(page));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let allowed = ["--allow-origin", page_origin.as_str()];
        let fleet = FleetScene::begin_with(fixture, &["--stateful"], &NAMES, &allowed).await?;
        fleet.agrees(&NAMES).await?;
        let nodes: Vec<_> = fleet.nodes.iter().map(|node| node.address()).collect();
        let balancer = Balancer::start(Rule::InTurn, &nodes).await?;
        let relay = Relay::start_for(b"GET /bench", balancer.address()).await?;
        let browser = Browser::start(fixture)?;
        let page = browser.open("counting", &format!("{page_origin}/?hub=http://{}/bench", relay.address())).await?;
        page.see("state", "open").await?;
        for cut in 1..=if is_full() { CUTS } else { 10 } {
            // Set before the clients answer: a cut that is still armed afterwards would hit the next round, in which it
            // could break this client's only attempt to reconnect.
            relay.decide(if cut % 2 == 0 { Fate::CutInPiece } else { Fate::Cut }, usize::MAX);
            page.click("more").await?;
            page.see("heard", &format!("{} heard", cut * 40)).await?;
        }
        assert_eq!([page.text("state").await?, page.text("fault").await?], ["open", ""]);
        browser.end().await
    });
}

/// Rebalances clients from fuller nodes, until the counts differ by at most a twentieth or one client.
async fn even_out(fleet: &FleetScene<'_>, clients: usize) -> Result<()> {
    let node = &fleet.nodes[0];
    let order = json!({ "to": "mean", "per_second": 50 }).to_string();
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let answer = exchange(node.admin(), Method::POST, "/api/rebalance", &headers, order.into()).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let report = until(async || {
        let report = get(node.admin(), "/api/rebalance").await?.json()?;
        Ok((report["state"] != "running").then_some(report))
    })
    .await?;
    ensure!(report["state"] == "done", "{report}");
    let mean = clients.div_ceil(NAMES.len());
    let most = (mean + 1).max(mean * 21 / 20) as f64;
    for node in &fleet.nodes {
        let here = node.metrics().await?.sum("trunkline_client_connections", &[]);
        ensure!(here <= most, "{here} of {clients} are at one of three nodes: {report}");
    }
    Ok(())
}

#[test]
fn a_rolling_restart_of_all_nodes_behind_haproxy_goes_unnoticed_and_so_does_a_rebalance() {
    run_heavy_test(async |fixture| {
        // As the HAProxy page requires, the balancer detects a stopping node before its clients leave; otherwise it
        // would send them back to that node. The times here are shorter.
        let mut fleet = FleetScene::begin_with(fixture, &["--stateful"], &NAMES, &["--drain-grace", "2"]).await?;
        fleet.agrees(&NAMES).await?;
        let shipped = Shipped::read(BalancerProduct::HaProxy)?.with("inter 2s", "inter 200ms")?;
        let balancer = shipped.start(fixture, &fleet.nodes).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for _ in 0..if is_full() { ROLLED_FULL } else { ROLLED } {
            for kind in Kind::JS {
                let builder = agents.client(kind, &balancer.url("/bench")).stateful().count(&["Echoed", "Tick"]);
                clients.push(builder.open().await?);
            }
        }
        // Half of the clients can't move. They are asked to reconnect.
        let mut plain = Vec::new();
        for _ in 0..clients.len() {
            let builder = agents.client(Kind::JsJson, &balancer.url("/bench")).reconnect_after_ms(&RETRIES_MS);
            plain.push(builder.open().await?);
        }
        clients[0].invoke("StartTicks", json!([20, 64])).await?;
        for (place, name) in NAMES.iter().enumerate() {
            let from = place as u64 * MESSAGES + 1;
            let node = &mut fleet.nodes[place];
            let talking = clients.iter().map(|client| converse(client, from, MESSAGES));
            let (talked, stopped) = tokio::join!(try_join_all(talking), stop(&mut node.process, Signal::Terminate));
            talked?;
            stopped.with_context(|| format!("{name} stops"))?;
            for other in fleet.nodes.iter().filter(|other| other.address() != fleet.nodes[place].address()) {
                shows(other, |sight| !sight.contains_key(*name)).await?;
            }
            fleet.nodes[place].start_again(fixture).await?;
            fleet.agrees(&NAMES).await?;
        }
        // The last node has no clients by now.
        even_out(&fleet, clients.len() + plain.len()).await?;
        clients[0].invoke("StopTicks", json!([])).await?;
        are_whole(&clients, NAMES.len() as u64 * MESSAGES).await?;
        let mut ended = 0;
        for client in &plain {
            ended += until(async || Ok(client.reconnections().await.ok())).await?;
            client.invoke("Echo", json!([0])).await?;
        }
        ensure!(
            ended >= plain.len(),
            "each node was stopped once, so each plain client was told at least once: {ended}"
        );
        // A plain client that is asked again before it has reconnected counts one reconnect and two ends. A client
        // that moved keeps its id: with an end at the hub, an opening would be missing.
        let metrics = Metrics::of(fleet.app.address()).await?;
        let opened = metrics.sum("trunkline_app_connections_opened_total", &[]);
        let closed = metrics.sum("trunkline_app_connections_closed_total", &[]);
        ensure!(closed >= ended as f64, "{closed} ends were heard, of {ended}");
        assert_eq!(
            opened - closed,
            (clients.len() + plain.len()) as f64,
            "the hub has heard of the ends of plain clients alone"
        );
        Ok(())
    });
}
