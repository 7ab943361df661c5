//! A node dies or freezes, and newly connected clients with stateful reconnect return quickly, with either protocol.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use trunkline_tests::harness::balancer::{Balancer, Rule};
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::App;
use trunkline_tests::harness::http_client::post;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{Fixture, is_full, run_heavy_test, until};

use super::{FleetScene, NAMES};

/// Clients of each hub protocol that are connected for some time, in the short and the long version.
const OLD: usize = 5;
const OLD_FULL: usize = 900;

/// Clients of each hub protocol that connect in the last second before their node dies, in the short and the long
/// version.
const YOUNG: usize = 10;
const YOUNG_FULL: usize = 100;

/// Delays between the attempts of a client that has lost its connection. The balancer still offers the dead node.
const RETRIES_MS: [u64; 12] = [0, 50, 50, 100, 100, 200, 200, 500, 500, 1_000, 1_000, 1_000];

/// Time limit for the return of all clients. If nodes did not query each other, silent clients would be away for 17 s.
const BACK_WITHIN: Duration = Duration::from_secs(15);
const BACK_WITHIN_FULL: Duration = Duration::from_secs(30);

/// Three nodes behind a round-robin balancer, with a relay in front.
struct Scene<'a> {
    fleet: FleetScene<'a>,
    balancer: Balancer,
    relay: Relay,
}

impl<'a> Scene<'a> {
    async fn open(fixture: &'a Fixture, of_app: &[&str]) -> Result<Self> {
        let fleet = FleetScene::begin_before(fixture, (App::Moves, of_app), &NAMES, &[]).await?;
        fleet.agrees(&NAMES).await?;
        let nodes: Vec<_> = fleet.nodes.iter().map(|node| node.address()).collect();
        let balancer = Balancer::start(Rule::InTurn, &nodes).await?;
        let relay = Relay::start_for(b"GET /moves", balancer.address()).await?;
        Ok(Self { fleet, balancer, relay })
    }

    async fn clients(&self, agents: &Agents<'_>, of_each_kind: usize) -> Result<Vec<Client>> {
        let url = format!("http://{}/moves", self.relay.address());
        let opening = Kind::JS
            .into_iter()
            .flat_map(|kind| std::iter::repeat_n(kind, of_each_kind))
            .map(|kind| agents.client(kind, &url).stateful().count(&["Number"]).reconnect_after_ms(&RETRIES_MS).open());
        try_join_all(opening).await
    }

    async fn at_the_first(&self) -> Result<f64> {
        Ok(self.fleet.nodes[0].metrics().await?.sum("trunkline_client_connections", &[]))
    }

    /// Checks that no connection was refused for an invalid or late hub handshake.
    async fn nobody_was_mute(&self) -> Result<()> {
        for node in self.fleet.nodes.iter().skip(1) {
            for cause in ["handshake_invalid", "handshake_timeout"] {
                let labels = [("cause", cause)];
                let refused = node.metrics().await?.sum("trunkline_client_connections_refused_total", &labels);
                assert_eq!(refused, 0.0, "{cause}");
            }
        }
        Ok(())
    }
}

/// Waits until this many clients have a new connection and all are connected.
async fn are_back(clients: &[Client], lost: f64) -> Result<()> {
    let begun = Instant::now();
    until(async || {
        let seen = join_all(clients.iter().map(Client::reconnections)).await;
        let Ok(seen) = seen.into_iter().collect::<Result<Vec<_>>>() else { return Ok(None) };
        let renewed = seen.iter().filter(|times| **times > 0).count();
        Ok((renewed as f64 >= lost).then_some(()))
    })
    .await?;
    let within = if is_full() { BACK_WITHIN_FULL } else { BACK_WITHIN };
    ensure!(begun.elapsed() < within, "they were gone for {:?}", begun.elapsed());
    Ok(())
}

async fn are_served(clients: &[Client]) -> Result<()> {
    try_join_all(clients.iter().map(|client| client.invoke("Who", json!([])))).await?;
    Ok(())
}

#[test]
fn clients_whose_node_is_killed_a_moment_after_they_have_connected_begin_anew_at_once() {
    run_heavy_test(async |fixture| {
        let mut scene = Scene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let (old, young) = if is_full() { (OLD_FULL, YOUNG_FULL) } else { (OLD, YOUNG) };
        let mut clients = scene.clients(&agents, old).await?;
        clients.extend(scene.clients(&agents, young).await?);
        let lost = scene.at_the_first().await?;
        ensure!(lost > 0.0, "the balancer takes turns");
        let running = clients.iter().take(2 * OLD).map(|client| client.call("Pass", json!(["call"])));
        let (answers, killed) = tokio::join!(join_all(running), async {
            scene.fleet.app.process.wait_for_lines("ran call", 2 * OLD).await?;
            scene.fleet.nodes[0].process.signal(Signal::Kill).await?;
            are_back(&clients, lost).await?;
            post(scene.fleet.app.address(), "/release").await
        });
        killed?;
        let failed = answers.into_iter().collect::<Result<Vec<_>>>()?.iter().filter(|answer| answer.is_err()).count();
        ensure!(failed as f64 <= lost, "{failed} of {lost}: calls at other nodes go on");
        are_served(&clients).await?;
        scene.nobody_was_mute().await
    });
}

#[test]
fn clients_whose_node_is_frozen_a_moment_after_they_have_connected_begin_anew_soon() {
    run_heavy_test(async |fixture| {
        let scene = Scene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let clients = scene.clients(&agents, if is_full() { YOUNG_FULL } else { YOUNG }).await?;
        let lost = scene.at_the_first().await?;
        ensure!(lost > 0.0, "the balancer takes turns");
        let frozen = &scene.fleet.nodes[0];
        frozen.process.signal(Signal::Freeze).await?;
        scene.balancer.take_out(frozen.address());
        // Clients of the other nodes continue.
        scene.relay.decide(Fate::Cut, usize::MAX);
        let back = are_back(&clients, lost).await;
        frozen.process.signal(Signal::Thaw).await?;
        back?;
        are_served(&clients).await?;
        scene.nobody_was_mute().await
    });
}
