//! Proxies crash, freeze, restart and drain: app servers are notified once of each ended connection, and no state
//! remains.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::json;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{Fixture, run_test, run_waiting_test, until};

const HUB: &str = "/moves";

const CLIENTS: usize = 20;

/// Two app servers, two proxies in front of both, and clients of each proxy.
struct Mesh {
    apps: [AppServer; 2],
    proxies: [Proxy; 2],
    clients: [Vec<RawClient>; 2],
    /// Connection ids of each proxy's clients.
    ids: [BTreeSet<String>; 2],
}

impl Mesh {
    async fn start(fixture: &Fixture, window_s: &str) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let apps = [fleet.app(App::Moves).await?, fleet.app(App::Moves).await?];
        let proxy = async |name| {
            let more = ["--resume-window", window_s, "--node-name", name, "--drain-timeout", "2"];
            fleet.proxy_with(&[&apps[0], &apps[1]], &more).await
        };
        let proxies = [proxy("first").await?, proxy("second").await?];
        let (first, first_ids) = crowd(&proxies[0]).await?;
        let (second, second_ids) = crowd(&proxies[1]).await?;
        for proxy in &proxies {
            until(async || {
                let groups = proxy.metrics().await?.sum("trunkline_groups", &[]);
                Ok((groups == CLIENTS as f64).then_some(()))
            })
            .await?;
        }
        let mesh = Self { apps, proxies, clients: [first, second], ids: [first_ids, second_ids] };
        for app in &mesh.apps {
            assert_eq!(connections(app).await?, CLIENTS as f64, "app servers take turns");
        }
        Ok(mesh)
    }

    /// Ids in output lines with this prefix; each once, and each at only one app server.
    fn told(&self, start: &str) -> BTreeSet<String> {
        let lines: Vec<String> = self.apps.iter().flat_map(|app| app.process.lines_after(start)).collect();
        let ids: BTreeSet<String> = lines.iter().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
        assert_eq!(ids.len(), lines.len(), "{start}: {lines:?}");
        ids
    }

    /// Waits until app servers were notified of this many disconnects.
    async fn disconnects(&self, count: usize) -> Result<()> {
        until(async || Ok((self.told("disconnected ").len() >= count).then_some(()))).await
    }

    /// Checks that the proxy's clients are served, then closes them and checks that no state remains.
    async fn leave(&mut self, proxy: usize) -> Result<()> {
        for client in &mut self.clients[proxy] {
            client.call("Run", json!(["still here"])).await?;
        }
        for client in std::mem::take(&mut self.clients[proxy]) {
            client.close().await?;
        }
        let all = self.told("connected ");
        self.disconnects(all.len()).await?;
        assert_eq!(self.told("disconnected "), all, "all that came have gone");
        for app in &self.apps {
            assert_eq!(connections(app).await?, 0.0);
        }
        until(async || {
            let metrics = self.proxies[proxy].metrics().await?;
            let kept = ["trunkline_client_connections", "trunkline_groups", "trunkline_outbox_bytes"];
            Ok(kept.iter().all(|name| metrics.sum(name, &[]) == 0.0).then_some(()))
        })
        .await
    }
}

async fn connections(app: &AppServer) -> Result<f64> {
    Ok(Metrics::of(app.address()).await?.sum("trunkline_app_connections", &[]))
}

/// Connects clients to a proxy, each in a separate group. Returns them with their ids.
async fn crowd(proxy: &Proxy) -> Result<(Vec<RawClient>, BTreeSet<String>)> {
    let mut clients = try_join_all((0..CLIENTS).map(|_| RawClient::join(proxy.address(), HUB))).await?;
    let mut ids = BTreeSet::new();
    for client in &mut clients {
        let who = client.call("Who", json!([])).await?;
        let id = who["result"][1].as_str().context("an id")?.to_owned();
        client.call("Join", json!([id])).await?;
        ids.insert(id);
    }
    Ok((clients, ids))
}

#[test]
fn the_clients_of_a_killed_proxy_are_reported_once_each_and_those_of_others_never() {
    run_test(async |fixture| {
        let mut mesh = Mesh::start(fixture, "1").await?;
        mesh.proxies[0].process.kill().await?;
        mesh.disconnects(CLIENTS).await?;
        assert_eq!(mesh.told("disconnected "), mesh.ids[0]);
        mesh.leave(1).await
    });
}

#[test]
fn a_proxy_frozen_beyond_the_window_keeps_clients_that_app_servers_gave_up() {
    run_test(async |fixture| {
        let mut mesh = Mesh::start(fixture, "1").await?;
        mesh.proxies[0].process.signal(Signal::Freeze).await?;
        mesh.disconnects(CLIENTS).await?;
        assert_eq!(mesh.told("disconnected "), mesh.ids[0]);
        mesh.proxies[0].process.signal(Signal::Thaw).await?;
        // Stale links count as open until the proxy has checked them, and calls over them fail.
        until(async || Ok((mesh.told("rehomed ") == mesh.ids[0]).then_some(()))).await?;
        // The client sockets, and so the connections, have survived: each has an app server again, under its id.
        let mut again = BTreeSet::new();
        for client in &mut mesh.clients[0] {
            let who = client.call("Who", json!([])).await?;
            again.insert(who["result"][1].as_str().context("an id")?.to_owned());
        }
        assert_eq!(again, mesh.ids[0]);
        assert_eq!(mesh.told("rehomed "), mesh.ids[0]);
        let closed = mesh.proxies[0].metrics().await?.sum("trunkline_client_connections_closed_total", &[]);
        assert_eq!(closed, 0.0);
        Ok(())
    });
}

#[test]
fn an_event_source_that_comes_back_by_itself_harms_no_newer_connection() {
    run_waiting_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Status).await?;
        let proxy = fleet.proxy(&app).await?;
        let road = Relay::start_for(b"GET /statusHub?", proxy.address()).await?;
        let agents = Agents::new(fixture);
        let url = format!("http://{}/statusHub", road.address());
        let listener = agents.client(Kind::JsJson, &url).transport(Transport::ServerSentEvents).subscribe(&["online"]);
        let mut listener = listener.reconnect_after_ms(&[0, 2_000, 2_000, 2_000]).open().await?;
        // The next stream fails to open, so the library gives up, but its EventSource opens the stream a second later.
        // The library passes everything from that stream, including its end, to the newer connection.
        road.refuse(1);
        road.decide(Fate::Cut, usize::MAX);
        listener.reconnected().await?;
        until(async || Ok((road.links() == 2).then_some(()))).await?;
        // A connection opened later has ended, because it had no hub handshake.
        RawClient::open(proxy.address(), "/statusHub").await?.ending().await?;
        let speaker = agents.client(Kind::JsJson, &proxy.url("/statusHub")).open().await?;
        let names: Vec<_> = (0..20).map(|number| json!(format!("{number}"))).collect();
        for name in &names {
            speaker.invoke("SendPing", json!([name])).await?;
        }
        for name in &names {
            assert_eq!(listener.expect("online").await?, std::slice::from_ref(name), "once, and in order");
        }
        Ok(())
    });
}
