//! Node links that are cut or stalled: within the resume window, no message is lost, duplicated or reordered.

use anyhow::{Result, ensure};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{Fixture, run_test, run_waiting_test};
use trunkline_tests::harness::sockets::free_address;

use super::{FleetScene, HUB, TARGET, all_agree, announce, got, shows, to_all};

const PAIR: [&str; 2] = ["node-a", "node-b"];

/// Number of announcements; the link is cut during each tenth.
const NUMBERS: u64 = 60;

/// Two nodes. The first reaches the second only through a relay.
struct RelayedPair<'a> {
    scene: FleetScene<'a>,
    relay: Relay,
}

impl<'a> RelayedPair<'a> {
    async fn open(fixture: &'a Fixture) -> Result<Self> {
        let mut scene = FleetScene::begin(fixture, &[], &[]).await?;
        let (first, second) = (free_address()?, free_address()?);
        let relay = Relay::start(&second).await?;
        scene.start(PAIR[1], &second, &[&second], &[])?;
        scene.nodes[0].ready().await?;
        scene.start(PAIR[0], &first, &[&relay.address()], &[])?;
        scene.nodes[1].ready().await?;
        scene.nodes.reverse();
        for node in &scene.nodes {
            all_agree(node, &PAIR).await?;
        }
        Ok(Self { scene, relay })
    }

    /// Connects a counting client of each hub protocol to the second node.
    async fn counting(&self, agents: &Agents<'_>) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for kind in Kind::JS {
            clients.push(agents.client(kind, &self.scene.nodes[1].url("/bench")).count(&[TARGET]).open().await?);
        }
        self.scene.settles(&json!({}), clients.len()).await?;
        Ok(clients)
    }
}

#[test]
fn what_is_announced_while_links_are_cut_comes_once_and_in_order() {
    run_test(async |fixture| {
        let pair = RelayedPair::open(fixture).await?;
        let agents = Agents::new(fixture);
        let clients = pair.counting(&agents).await?;
        for number in 0..NUMBERS {
            if number % 10 == 5 {
                pair.relay.decide(if number % 20 == 5 { Fate::Cut } else { Fate::CutInPiece }, usize::MAX);
            }
            let body = json!({ "hub": HUB, "target": TARGET, "arguments": [number] });
            let answer = announce(&pair.scene.nodes[0], &body).await?;
            ensure!(answer["missing"] == json!([]), "{number}: {answer}");
        }
        for client in &clients {
            let sequence = client.sequence(TARGET, NUMBERS).await?;
            ensure!(sequence.broken.is_none() && sequence.received == NUMBERS, "{sequence:?}");
        }
        let metrics = pair.scene.nodes[0].metrics().await?;
        assert_eq!(metrics.sum("trunkline_fleet_dropped_total", &[]), 0.0);
        Ok(())
    });
}

#[test]
fn what_is_announced_over_a_link_that_brings_nothing_comes_when_it_is_dialled_again() {
    run_waiting_test(async |fixture| {
        let pair = RelayedPair::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = pair.scene.crowd(&agents, &pair.scene.nodes).await?;
        let mut behind = clients.split_off(2);
        pair.relay.decide(Fate::Held, usize::MAX);
        let answer = announce(&pair.scene.nodes[0], &to_all("held")).await?;
        assert_eq!((&answer["clients"], &answer["missing"]), (&json!(2), &json!([PAIR[1]])), "{answer}");
        for client in &mut clients {
            assert_eq!(client.expect(TARGET).await?, [json!("held")], "nobody else waits");
        }
        for client in &mut behind {
            assert_eq!(client.expect(TARGET).await?, [json!("held")]);
        }
        for node in &pair.scene.nodes {
            all_agree(node, &PAIR).await?;
        }
        clients.append(&mut behind);
        got(&mut clients, &pair.scene.nodes[0], &[]).await
    });
}

#[test]
fn a_node_that_is_reached_no_more_is_missed_and_back_when_the_way_is() {
    run_waiting_test(async |fixture| {
        let pair = RelayedPair::open(fixture).await?;
        pair.relay.let_in(false);
        pair.relay.decide(Fate::Held, usize::MAX);
        shows(&pair.scene.nodes[0], |sight| sight.get(PAIR[1]).is_none_or(|state| state == "late")).await?;
        pair.relay.let_in(true);
        for node in &pair.scene.nodes {
            all_agree(node, &PAIR).await?;
        }
        Ok(())
    });
}
