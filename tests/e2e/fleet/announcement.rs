//! Announcements: their recipients, the errors for invalid ones, and permission to announce.

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;
use tokio::process::Command;
use trunkline_tests::harness::client::{Agents, Client};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{profile_folder, run_test, until};

use super::{
    ADMIN_TOKEN, FleetScene, HUB, NAMES, TARGET, announce, counted, got, post_announcement, reaches, sight, to_all,
    told,
};

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
fn arguments_arrive_as_they_were_given_in_both_protocols() {
    run_test(async |fixture| {
        let scene = FleetScene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        let arguments = json!(["grüße \u{1f389}", 7, -1.5, true, null, [], { "inner": { "list": [1, "two", null] } }]);
        let body = json!({ "hub": HUB, "target": TARGET, "arguments": arguments });
        reaches(&scene.nodes[1], &body, NAMES.len(), clients.len()).await?;
        for client in &mut clients {
            assert_eq!(json!(client.expect(TARGET).await?), arguments, "{:?}", client.kind());
        }
        Ok(())
    });
}

#[test]
fn a_wrong_announcement_is_answered_with_the_field_that_is_wrong() {
    run_test(async |fixture| {
        let scene = FleetScene::begin(fixture, &["alone"], &[]).await?;
        let node = &scene.nodes[0];
        let long = "x".repeat(10_000);
        for (change, field) in [
            (json!({ "hub": null }), "hub"),
            (json!({ "hub": 7 }), "hub"),
            (json!({ "hub": "" }), "hub"),
            (json!({ "target": null }), "target"),
            (json!({ "target": "" }), "target"),
            (json!({ "target": long }), "target"),
            (json!({ "arguments": "text" }), "arguments"),
            (json!({ "arguments": null }), "arguments"),
            (json!({ "arguments": vec![0; 33] }), "arguments"),
            (json!({ "group": "" }), "group"),
            (json!({ "group": long }), "group"),
            (json!({ "group": 7 }), "group"),
            (json!({ "user": "" }), "user"),
            (json!({ "user": ["a"] }), "user"),
            (json!({ "group": "g", "user": "u" }), "user"),
            (json!({ "colour": "red" }), "colour"),
        ] {
            let mut body = to_all("text");
            for (name, value) in change.as_object().context("a change")? {
                body[name] = value.clone();
            }
            let answer = post_announcement(node, &body.to_string()).await?;
            assert_eq!(answer.status, 400, "{change}: {answer:?}");
            let told = answer.json()?;
            assert_eq!(told["field"], field, "{change}: {told}");
            assert!(told["error"].as_str().is_some_and(|text| text.contains(field)), "{change}: {told}");
        }
        let mut elsewhere = to_all("text");
        elsewhere["hub"] = json!("nowhere");
        assert_eq!(post_announcement(node, &elsewhere.to_string()).await?.status, 404, "no node has this hub");
        for body in ["", "{", "[1]", "7"] {
            let answer = post_announcement(node, body).await?;
            assert_eq!(answer.status, 400, "{body}");
            assert_eq!(answer.json()?["field"], "body", "{body}");
        }
        let large = to_all(&"x".repeat(64 << 10)).to_string();
        assert_eq!(post_announcement(node, &large).await?.status, 413);
        Ok(())
    });
}

#[test]
fn who_shows_no_admin_token_announces_nothing() {
    run_test(async |fixture| {
        let scene = FleetScene::begin(fixture, &["alone"], &[]).await?;
        let (node, body) = (&scene.nodes[0], to_all("text").to_string());
        let (json, wrong) = (("content-type", "application/json"), "Bearer not-the-token-of-this-fleet");
        for headers in [vec![json], vec![json, ("authorization", wrong)]] {
            let answer = exchange(node.admin(), Method::POST, "/api/announce", &headers, body.clone().into()).await?;
            assert_eq!(answer.status, 401, "{answer:?}");
        }
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let form = [("content-type", "text/plain"), ("authorization", bearer.as_str())];
        let answer = exchange(node.admin(), Method::POST, "/api/announce", &form, body.into()).await?;
        assert_eq!(answer.status, 415, "a form can't say that it is JSON");
        assert_eq!(get(node.admin(), "/api/announce").await?.status, 405);
        Ok(())
    });
}

#[test]
fn a_node_without_peers_announces_to_its_own_clients() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let node = fleet.proxy_with(&[&app], &["--admin-token", ADMIN_TOKEN, "--node-name", "alone"]).await?;
        let agents = Agents::new(fixture);
        let scene = FleetScene { fleet, app, nodes: vec![node] };
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        reaches(&scene.nodes[0], &to_all("hello"), 1, 2).await?;
        got(&mut clients, &scene.nodes[0], &["hello"]).await?;
        let fleet = told(&scene.nodes[0]).await?;
        assert_eq!((&fleet["agree"], fleet["nodes"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{fleet}");
        Ok(())
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
