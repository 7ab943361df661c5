//! Links drop, but no message is lost: numbered messages in both directions while links are cut, stalled and frozen.

use std::cell::Cell;

use anyhow::Result;
use futures_util::future::{try_join, try_join_all};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;

const CUTS: usize = 20;
/// Messages of a client between two checks for the end of the cuts.
const BATCH: u64 = 500;
const HUB: (&str, &str) = ("hub", "bench");

/// App server, and a proxy that reaches it through a relay.
struct Line {
    app: AppServer,
    relay: Relay,
    proxy: Proxy,
}

impl Line {
    async fn start(fleet: &Fleet<'_>, window_s: &str) -> Result<Self> {
        let app = fleet.app(App::Bench).await?;
        let relay = Relay::start(app.address()).await?;
        let more = ["--resume-window", window_s];
        let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &[&relay.address()], &more)?;
        proxy.ready().await?;
        proxy.linked(POOL_SIZE).await?;
        Ok(Self { app, relay, proxy })
    }

    async fn resumed(&self) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum("trunkline_links_resumed_total", &[]))
    }

    async fn in_state(&self, state: &str) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum("trunkline_links", &[("state", state)]))
    }

    /// Checks that no client, session or frame was lost.
    async fn is_whole(&self, clients: usize) -> Result<()> {
        let metrics = self.proxy.metrics().await?;
        for nothing in [
            "trunkline_frames_lost_total",
            "trunkline_link_sessions_ended_total",
            "trunkline_client_connections_closed_total",
        ] {
            assert_eq!(metrics.sum(nothing, &[]), 0.0, "{nothing}");
        }
        assert_eq!(metrics.sum("trunkline_client_connections", &[]), clients as f64);
        let app = Metrics::of(self.app.address()).await?;
        assert_eq!(app.sum("trunkline_app_connections", &[HUB]), clients as f64);
        assert_eq!(app.sum("trunkline_app_frames_lost_total", &[HUB]), 0.0);
        Ok(())
    }
}

/// Sends numbers while links are cut, then checks that each echo arrived once and in order.
async fn echo(client: &Client, is_over: &Cell<bool>) -> Result<()> {
    let mut sent = 0;
    while !is_over.get() {
        client.flood("EchoBack", sent + 1, BATCH).await?;
        sent += BATCH;
        let echoed = client.sequence("Echoed", sent).await?;
        assert_eq!(echoed.broken, None, "{:?}", client.kind());
    }
    client.invoke("Echo", json!([0])).await?;
    let echoed = client.sequence("Echoed", sent).await?;
    assert_eq!((echoed.received, echoed.first, echoed.broken), (sent, Some(1), None), "{:?}", client.kind());
    Ok(())
}

/// Sends numbers to the group, then checks that all members received them.
async fn talk_to_group(talker: &mut RawClient, members: &[Client], is_over: &Cell<bool>) -> Result<()> {
    let mut sent = 0;
    while !is_over.get() {
        sent += 1;
        talker.call("SendToGroup", json!(["g", sent])).await?;
    }
    for member in members {
        let heard = member.sequence("Message", sent).await?;
        assert_eq!((heard.received, heard.first, heard.broken), (sent, Some(1), None), "{:?}", member.kind());
    }
    Ok(())
}

/// Cuts links repeatedly. Waits each time until all are open again.
async fn cut(line: &Line, cuts: usize) -> Result<()> {
    for round in 0..cuts {
        let before = line.resumed().await?;
        let (fate, count) = match round % 10 {
            9 => (Fate::Held, POOL_SIZE),
            0 | 3 | 6 => (Fate::Cut, POOL_SIZE),
            1 | 4 | 7 => (Fate::CutInPiece, POOL_SIZE),
            _ => (Fate::CutInPiece, 1),
        };
        line.relay.decide(fate, count);
        until(async || Ok((line.resumed().await? >= before + count as f64).then_some(()))).await?;
        line.proxy.linked(POOL_SIZE).await?;
    }
    Ok(())
}

#[test]
fn links_that_are_cut_lose_nothing_repeat_nothing_and_keep_the_order() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let line = Line::start(&fleet, "5").await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for kind in Kind::JS {
            let counted = ["Echoed", "Tick", "Message"];
            clients.push(agents.client(kind, &line.proxy.url("/bench")).count(&counted).open().await?);
        }
        for client in &clients {
            client.invoke("Join", json!(["g"])).await?;
        }
        let mut talker = RawClient::join(line.proxy.address(), "/bench").await?;
        clients[0].invoke("StartTicks", json!([2, 64])).await?;
        let is_over = Cell::new(false);
        let cutting = async {
            cut(&line, if is_full() { 10 * CUTS } else { CUTS }).await?;
            is_over.set(true);
            Ok(())
        };
        let echoing = try_join_all(clients.iter().map(|client| echo(client, &is_over)));
        let talking = talk_to_group(&mut talker, &clients, &is_over);
        try_join(cutting, try_join(echoing, talking)).await?;
        clients[0].invoke("StopTicks", json!([])).await?;
        for client in &clients {
            let ticks = client.sequence("Tick", 1).await?;
            assert!(ticks.broken.is_none() && ticks.received > 0, "{ticks:?}");
        }
        line.is_whole(clients.len() + 1).await
    });
}

#[test]
fn processes_that_freeze_for_less_than_the_window_go_on_where_they_were() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let line = Line::start(&fleet, "4").await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &line.proxy.url("/bench")).count(&["Echoed"]).open().await?;
        client.flood("EchoBack", 1, BATCH).await?;
        client.sequence("Echoed", BATCH).await?;

        line.app.process.signal(Signal::Freeze).await?;
        client.flood("EchoBack", BATCH + 1, BATCH).await?;
        until(async || Ok((line.in_state("resuming").await? >= POOL_SIZE as f64).then_some(()))).await?;
        line.app.process.signal(Signal::Thaw).await?;
        client.sequence("Echoed", 2 * BATCH).await?;
        // The link lost last is dialled last, so its window must not end while the peer stalls.
        line.proxy.linked(POOL_SIZE).await?;

        client.flood("EchoBack", 2 * BATCH + 1, BATCH).await?;
        line.proxy.process.signal(Signal::Freeze).await?;
        until(async || {
            let links = Metrics::of(line.app.address()).await?.sum("trunkline_app_links", &[HUB]);
            Ok((links == 0.0).then_some(()))
        })
        .await?;
        line.proxy.process.signal(Signal::Thaw).await?;
        let echoed = client.sequence("Echoed", 3 * BATCH).await?;
        assert_eq!((echoed.received, echoed.broken), (3 * BATCH, None));
        line.proxy.linked(POOL_SIZE).await?;
        line.is_whole(1).await
    });
}
