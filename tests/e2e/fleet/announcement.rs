//! Announcements: their recipients, the errors for invalid ones, and permission to announce.

use anyhow::{Context, Result};
use serde_json::json;
use tokio::process::Command;
use trunkline_tests::harness::client::{Agents, Client};
use trunkline_tests::harness::fleet::Proxy;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{profile_folder, run_test, until};

use super::{ADMIN_TOKEN, FleetScene, HUB, NAMES, TARGET, announce, counted, got, reaches, sight, to_all, told};

#[test]
fn an_announcement_at_any_node_reaches_each_client_of_the_fleet_once() {
    run_test(async |fixture| {
        let scene = FleetScene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        for (place, node) in scene.nodes.iter().enumerate() {
            reaches(node, &to_all(&format!("from {place}")), NAMES.len(), clients.len()).await?;
            // Announces to the clients of each node, by a group and a user that only these clients have.
            for other in 0..scene.nodes.len() {
                for (kind, name) in [("group", format!("group-{other}")), ("user", format!("user-{other}"))] {
                    let body = json!({ "hub": HUB, "target": TARGET, "arguments": [format!("{place} to {name}")], kind: name });
                    let answer = announce(node, &body).await?;
                    assert_eq!((&answer["clients"], &answer["missing"]), (&json!(2), &json!([])), "{body}: {answer}");
                }
            }
        }
        for place in 0..scene.nodes.len() {
            let texts: Vec<String> = (0..scene.nodes.len())
                .flat_map(|from| {
                    [format!("from {from}"), format!("{from} to group-{place}"), format!("{from} to user-{place}")]
                })
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let own = &mut clients[2 * place..][..2];
            expect_all(own, &texts).await?;
        }
        // No duplicates, and no messages for other clients.
        got(&mut clients, &scene.nodes[0], &[]).await
    });
}

/// Checks that each of these clients receives these texts next, in this order.
async fn expect_all(clients: &mut [Client], texts: &[&str]) -> Result<()> {
    for client in clients {
        for text in texts {
            assert_eq!(client.expect(TARGET).await?, [json!(text)], "{:?}", client.kind());
        }
    }
    Ok(())
}

/// Runs `trunkline announce` at a node. Returns whether it succeeded, and its output.
async fn command(node: &Proxy, text: &str) -> Result<(bool, String)> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    command.args(["announce", "--admin", &format!("http://{}", node.admin()), "--hub", HUB, "--target", TARGET]);
    command.args(["--arguments", &json!([text]).to_string()]).env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN);
    let output = command.kill_on_drop(true).output().await?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

#[test]
fn the_command_says_whom_it_has_reached_and_fails_when_a_node_is_missing() {
    run_test(async |fixture| {
        let scene = FleetScene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        let (is_good, said) = command(&scene.nodes[1], "typed").await?;
        assert!(is_good && said.contains("6 clients at 3 nodes"), "{said}");
        scene.nodes[2].process.signal(Signal::Freeze).await?;
        let (is_good, said) = command(&scene.nodes[1], "typed again").await?;
        assert!(!is_good && said.contains("4 clients at 2 nodes") && said.contains(NAMES[2]), "{said}");
        scene.nodes[2].process.signal(Signal::Thaw).await?;
        scene.agrees(&NAMES).await?;
        got(&mut clients, &scene.nodes[0], &["typed", "typed again"]).await
    });
}

#[test]
fn each_node_shows_all_with_state_and_lag_and_counts_what_it_passes_on() {
    run_test(async |fixture| {
        let scene = FleetScene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        for node in &scene.nodes {
            let fleet = told(node).await?;
            assert_eq!(sight(&fleet)?.len(), NAMES.len(), "{fleet}");
            for shown in fleet["nodes"].as_array().context("nodes")? {
                assert!(shown["lagMs"].as_f64().is_some_and(|lag| (0.0..5_000.0).contains(&lag)), "{shown}");
                assert_eq!(shown["links"].as_array().map(Vec::len), Some(1), "{shown}");
            }
            // Metrics are updated within a second.
            until(async || Ok((counted(node, "ready").await? == NAMES.len() as f64).then_some(()))).await?;
            assert_eq!(node.metrics().await?.sum("trunkline_fleet_agree", &[]), 1.0);
        }
        let sums = async || -> Result<Vec<f64>> {
            let mut sums = Vec::new();
            for node in &scene.nodes {
                let metrics = node.metrics().await?;
                sums.push(
                    ["sent", "received"].map(|way| metrics.sum("trunkline_fleet_frames_total", &[("direction", way)])),
                );
            }
            Ok(sums.concat())
        };
        let before = sums().await?;
        reaches(&scene.nodes[0], &to_all("counted"), NAMES.len(), clients.len()).await?;
        let after = sums().await?;
        // The first node sent a request to each of the others.
        assert!(after[0] >= before[0] + 2.0, "{before:?} {after:?}");
        assert!(after[3] > before[3] && after[5] > before[5], "{before:?} {after:?}");
        got(&mut clients, &scene.nodes[0], &["counted"]).await
    });
}
