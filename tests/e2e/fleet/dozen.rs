//! Fleet of twelve: each node has one link to each other, an announcement reaches all, and idle nodes send little.

use anyhow::{Result, ensure};
use serde_json::json;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{run_heavy_test, until};
use trunkline_tests::harness::sockets::established_at;

use super::{FleetScene, PROBE, TARGET, reaches, to_all};

const NODES: usize = 12;

/// Maximum number of node messages from one node to another within the 15 s between two keep-alives of a client.
const IDLE_MAX: f64 = 60.0;

#[test]
fn twelve_nodes_have_one_link_each_way_and_pass_an_announcement_to_all() {
    run_heavy_test(async |fixture| {
        let names: Vec<String> = (1..=NODES).map(|number| format!("node-{number:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let scene = FleetScene::begin(fixture, &names, &[]).await?;
        scene.agrees(&names).await?;
        for node in &scene.nodes {
            // Waits for the test's own connections to close.
            until(async || Ok((established_at(node.admin())? == NODES - 1).then_some(()))).await?;
        }
        let mut clients = Vec::new();
        for node in &scene.nodes {
            clients.push(RawClient::join(node.address(), "/bench").await?);
        }
        scene.settles(&json!({}), NODES).await?;
        for node in [&scene.nodes[0], &scene.nodes[NODES - 1]] {
            reaches(node, &to_all("to all"), NODES, NODES).await?;
        }
        for client in &mut clients {
            let mut notices = 0;
            while notices < 2 {
                let record = client.next_record().await?;
                let is_notice = record["target"] == TARGET && record["arguments"] == json!(["to all"]);
                ensure!(is_notice || record["target"] == PROBE, "{record}");
                notices += usize::from(is_notice);
            }
        }
        let before = sent(&scene).await?;
        clients[0].next_ping().await?;
        let idle = (sent(&scene).await? - before) / (NODES * (NODES - 1)) as f64;
        assert!(idle < IDLE_MAX, "{idle} node messages for each link");
        Ok(())
    });
}

/// Node messages that all nodes have sent so far.
async fn sent(scene: &FleetScene<'_>) -> Result<f64> {
    let mut sum = 0.0;
    for node in &scene.nodes {
        sum += node.metrics().await?.sum("trunkline_fleet_frames_total", &[("direction", "sent")]);
    }
    Ok(sum)
}
