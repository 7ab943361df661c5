//! Own writes: after the answer to a join, the client receives every message to the group, from any node, while other
//! nodes fail.
//!
//! Official clients join groups in sequence. Each join is immediately followed by an announcement to that group at
//! another node, which must reach exactly one member. Meanwhile a node is frozen, killed and added.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::Proxy;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, is_full, run_heavy_test};

use super::{FleetScene, HUB, TARGET, announce};

/// Clients of each used node.
const CLIENTS: usize = 2;

/// Clients at all nodes except the last one, which is disturbed.
struct Joiners<'a> {
    scene: FleetScene<'a>,
    /// Each client with the index of its node.
    clients: Vec<(usize, Client)>,
    /// Joins per client so far.
    joins: usize,
}

impl<'a> Joiners<'a> {
    async fn open(scene: FleetScene<'a>, agents: &Agents<'_>) -> Result<Self> {
        let mut clients = Vec::new();
        for (place, node) in scene.nodes.iter().enumerate().take(scene.nodes.len() - 1) {
            for number in 0..CLIENTS {
                let kind = Kind::JS[number % Kind::JS.len()];
                let client = agents.client(kind, &node.url("/bench")).subscribe(&[TARGET]).open().await?;
                clients.push((place, client));
            }
        }
        Ok(Self { scene, clients, joins: 0 })
    }

    fn last(&mut self) -> Result<&mut Proxy> {
        self.scene.nodes.last_mut().context("a node")
    }

    /// Lets each client join this many groups, each followed by an announcement at one of the first nodes.
    async fn join(&mut self, count: usize, entries: usize, when: &str) -> Result<()> {
        let (nodes, first, each) = (&self.scene.nodes, self.joins, count.div_ceil(self.clients.len()));
        let all = self.clients.iter_mut().enumerate().map(async |(number, (place, client))| {
            let mut times = Vec::new();
            for turn in first..first + each {
                let group = format!("own-{number}-{turn}");
                let begun = Instant::now();
                client.invoke("Join", json!([group])).await?;
                times.push(begun.elapsed());
                let entry = (*place + 1 + turn % (entries - 1)) % entries;
                let body = json!({ "hub": HUB, "group": group, "target": TARGET, "arguments": [group] });
                let answer = announce(&nodes[entry], &body).await?;
                ensure!(answer["clients"] == 1, "{when}: {group} at node {place}, sent at {entry}: {answer}");
                ensure!(client.expect(TARGET).await? == [json!(group)], "{when}: another message than that of {group}");
            }
            Ok(times)
        });
        let times = try_join_all(all).await?.concat();
        self.joins += each;
        eprintln!("{when}, {} nodes: {} joins, none missed; {}", nodes.len(), times.len(), percentiles(times));
        Ok(())
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or_default();
    format!("a join p50 {:.1?}, p99 {:.1?}, most {:.1?}", at(50), at(99), at(100))
}

async fn nobody_misses_what_follows(fixture: &Fixture, count: usize, joins: usize) -> Result<()> {
    let names: Vec<String> = (1..=count).map(|number| format!("node-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let scene = FleetScene::begin(fixture, &names, &[]).await?;
    scene.agrees(&names).await?;
    let agents = Agents::new(fixture);
    let mut joiners = Joiners::open(scene, &agents).await?;
    joiners.join(joins, count, "undisturbed").await?;

    joiners.last()?.process.signal(Signal::Freeze).await?;
    joiners.join(joins, count - 1, "one frozen").await?;
    joiners.last()?.process.signal(Signal::Thaw).await?;
    joiners.scene.agrees(&names).await?;
    joiners.join(joins, count, "thawed").await?;

    joiners.last()?.process.kill().await?;
    joiners.join(joins, count - 1, "one killed").await?;
    // The announcement follows as soon as the new node is ready.
    joiners.last()?.start_again(fixture).await?;
    joiners.join(joins, count, "one added").await
}

#[test]
fn what_follows_a_join_at_any_node_reaches_its_client() {
    let (fleets, joins): (&[usize], usize) = if is_full() { (&[3, 12], 2000) } else { (&[3], 120) };
    for &nodes in fleets {
        run_heavy_test(async |fixture| nobody_misses_what_follows(fixture, nodes, joins).await);
    }
}
