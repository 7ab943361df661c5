//! Fleets whose nodes have no way to each other but NATS.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trunkline_tests::harness::balancer::{Balancer, Rule};
use trunkline_tests::harness::client::{Agents, Message};
use trunkline_tests::harness::fleet::{Proxy, stop};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::nats::Nats;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, until};

use super::{FleetScene, NAMES, TARGET, announce, got, reaches, shows, to_all};
use crate::http_transports::libraries::WAYS;
use crate::order::flood_and_check;

const MESSAGES: u64 = 300;

/// Number of announcements around each kill of a NATS server.
const AROUND_A_KILL: usize = 40;

const KILLS: usize = 3;
const KILLS_FULL: usize = 30;

async fn hops(nodes: &[Proxy]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metrics().await?.sum("trunkline_owner_hops_total", &[]);
    }
    Ok(sum)
}

#[test]
fn every_transport_works_at_any_node_and_announcements_reach_all() {
    run_heavy_test(async |fixture| {
        let nats = Nats::alone(fixture).await?;
        let url = format!("nats://{}", nats.address());
        let scene = FleetScene::open(fixture, &["--fleet-by", "nats", "--nats", &url]).await?;
        let agents = Agents::new(fixture);
        let addresses: Vec<_> = scene.nodes.iter().map(Proxy::address).collect();
        let balancer = Balancer::start(Rule::Apart, &addresses).await?;
        for (kind, transport) in WAYS {
            let builder = agents.client(kind, &balancer.url("/bench")).transport(transport);
            let mut client = builder.count(&["Echoed"]).open().await?;
            let before = hops(&scene.nodes).await?;
            flood_and_check(&client, MESSAGES).await?;
            ensure!(hops(&scene.nodes).await? > before, "{kind:?} over {transport:?}");
            client.close().await?;
        }
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        for (node, text) in scene.nodes.iter().zip(["a", "b", "c"]) {
            reaches(node, &to_all(text), NAMES.len(), clients.len()).await?;
        }
        got(&mut clients, &scene.nodes[0], &["a", "b", "c"]).await
    });
}

#[test]
fn kills_of_nats_servers_lose_double_and_reorder_nothing_that_was_acknowledged() {
    run_heavy_test(async |fixture| {
        let mut servers = Nats::cluster(fixture).await?;
        let urls = Nats::urls(&servers);
        let scene = FleetScene::open(fixture, &["--fleet-by", "nats", "--nats", &urls]).await?;
        let mut clients = scene.crowd(&Agents::new(fixture), &scene.nodes).await?;
        let (mut acknowledged, mut number) = (Vec::new(), 0_usize);
        for kill in 0..if is_full() { KILLS_FULL } else { KILLS } {
            let server = kill % servers.len();
            for step in 0..AROUND_A_KILL {
                match step {
                    10 => servers[server].process.kill().await?,
                    25 => servers[server].start_again(fixture).await?,
                    _ => {}
                }
                let text = number.to_string();
                let answer = announce(&scene.nodes[number % scene.nodes.len()], &to_all(&text)).await?;
                if answer["missing"] == json!([]) && answer["nodes"] == json!(NAMES.len()) {
                    acknowledged.push(text);
                }
                number += 1;
            }
            scene.agrees(&NAMES).await?;
        }
        // While NATS elects a leader, nodes answer without the others.
        ensure!(acknowledged.len() * 4 > number, "{} of {number} were acknowledged", acknowledged.len());
        announce(&scene.nodes[0], &to_all("the fence")).await?;
        let fence = Message { target: TARGET.into(), arguments: vec![json!("the fence")] };
        for client in &mut clients {
            let seen = client.before(&fence).await?;
            let seen = seen.iter().map(|message| message.arguments[0].as_str().context("a text"));
            let seen = seen.collect::<anyhow::Result<Vec<_>>>()?;
            let once: BTreeSet<_> = seen.iter().collect();
            ensure!(once.len() == seen.len(), "each once: {seen:?}");
            let in_order = seen.iter().filter(|text| acknowledged.iter().any(|sent| sent == *text));
            let in_order = in_order.map(|text| text.parse()).collect::<Result<Vec<usize>, _>>()?;
            ensure!(in_order.is_sorted(), "in order: {in_order:?}");
            let lost: Vec<_> = acknowledged.iter().filter(|text| !seen.contains(&text.as_str())).collect();
            ensure!(lost.is_empty(), "{:?} lost {lost:?}", client.kind());
            client.is_undisturbed().await?;
        }
        Ok(())
    });
}

#[test]
fn without_nats_clients_keep_their_connections_and_the_fleet_comes_together_again() {
    run_heavy_test(async |fixture| {
        let mut nats = Nats::alone(fixture).await?;
        let url = format!("nats://{}", nats.address());
        let scene = FleetScene::open(fixture, &["--fleet-by", "nats", "--nats", &url]).await?;
        let mut clients = scene.crowd(&Agents::new(fixture), &scene.nodes).await?;
        nats.process.kill().await?;
        let condition = async || {
            let conditions: Value = get(scene.nodes[0].admin(), "/api/conditions").await?.json()?;
            let active = conditions["conditions"].as_array().context("conditions")?.iter();
            let mut active = active.filter(|condition| condition["endedMs"].is_null());
            Ok(active.any(|condition| condition["name"] == "broker-unreachable").then_some(()))
        };
        until(condition).await?;
        // sleep: NATS is away for longer than nodes wait for an answer of another one
        tokio::time::sleep(Duration::from_secs(if is_full() { 60 } else { 12 })).await;
        for client in &clients {
            client.invoke("Echo", json!([1])).await?;
        }
        nats.start_again(fixture).await?;
        scene.agrees(&NAMES).await?;
        scene.settles(&json!({}), clients.len()).await?;
        reaches(&scene.nodes[2], &to_all("again"), NAMES.len(), clients.len()).await?;
        for client in &mut clients {
            client.is_undisturbed().await?;
        }
        got(&mut clients, &scene.nodes[0], &["again"]).await
    });
}

#[test]
fn a_fleet_moves_from_peers_to_nats_and_is_whole_after_each_restart() {
    run_heavy_test(async |fixture| {
        let nats = Nats::alone(fixture).await?;
        let url = format!("nats://{}", nats.address());
        let mut scene = FleetScene::open(fixture, &["--nats", &url]).await?;
        let admins: Vec<_> = scene.nodes.iter().map(|node| node.admin().to_owned()).collect();
        let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
        for way in [&["--fleet-by", "nats", "--peers", &peers][..], &["--fleet-by", "nats"]] {
            for place in 0..NAMES.len() {
                stop(&mut scene.nodes[place].process, Signal::Terminate).await?;
                for (_, other) in scene.nodes.iter().enumerate().filter(|(at, _)| *at != place) {
                    shows(other, |sight| !sight.contains_key(NAMES[place])).await?;
                }
                scene.start(NAMES[place], &admins[place], &[], &[way, &["--nats", &url]].concat())?;
                let mut again = scene.nodes.pop().context("the new node")?;
                again.ready().await?;
                scene.nodes[place] = again;
                scene.agrees(&NAMES).await?;
                for node in &scene.nodes {
                    reaches(node, &to_all("whole"), NAMES.len(), 0).await?;
                }
            }
        }
        Ok(())
    });
}
