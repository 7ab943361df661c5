//! Nodes that die or freeze: the others report them and continue, and no client receives a message twice.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{run_heavy_test, run_test, until};

use super::{FleetScene, NAMES, all_agree, announce, counted, got, reaches, sees, shows, to_all};

/// Time limit for detecting a lost node: seconds, but longer on a busy machine.
const NOTICED: Duration = Duration::from_secs(90);

/// Time limit for an announcement that waits for an unresponsive node.
const ANSWERED: Duration = Duration::from_secs(90);

/// Whether a dead node is unreachable or removed.
fn is_away(state: Option<&String>) -> bool {
    state.is_none_or(|state| state == "unreachable")
}

#[test]
fn a_killed_node_is_noticed_and_the_others_go_on() {
    run_test(async |fixture| {
        let mut scene = FleetScene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes[..2]).await?;
        scene.nodes[2].process.kill().await?;
        let started = Instant::now();
        // The state of the dead node does not matter: no long waits, and no duplicates.
        let answer = announce(&scene.nodes[0], &to_all("at once")).await?;
        assert_eq!(answer["clients"], json!(4), "{answer}");
        for node in &scene.nodes[..2] {
            shows(node, |sight| {
                is_away(sight.get(NAMES[2])) && sight.values().filter(|state| *state == "ready").count() == 2
            })
            .await?;
            until(async || Ok((counted(node, "ready").await? == 2.0).then_some(()))).await?;
        }
        ensure!(started.elapsed() < NOTICED, "{:?}", started.elapsed());
        for node in &scene.nodes[..2] {
            shows(node, |sight| !sight.contains_key(NAMES[2])).await?;
            reaches(node, &to_all("afterwards"), 2, clients.len()).await?;
        }
        got(&mut clients, &scene.nodes[1], &["at once", "afterwards", "afterwards"]).await?;

        scene.nodes[2].start_again(fixture).await?;
        scene.agrees(&NAMES).await?;
        clients.extend(scene.crowd(&agents, &scene.nodes[2..]).await?);
        scene.settles(&json!({}), clients.len()).await?;
        reaches(&scene.nodes[0], &to_all("together"), 3, clients.len()).await?;
        got(&mut clients, &scene.nodes[2], &["together"]).await
    });
}

#[test]
fn a_frozen_node_is_late_and_its_clients_get_what_was_announced_meanwhile_once() {
    run_heavy_test(async |fixture| {
        let scene = FleetScene::open(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        let mut at_frozen = clients.split_off(4);
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.nodes[1].admin())).await?;
        page.see_count("nodes", "tbody tr[data-state=open]", NAMES.len()).await?;
        scene.nodes[2].process.signal(Signal::Freeze).await?;
        let started = Instant::now();
        let answer = announce(&scene.nodes[0], &to_all("meanwhile")).await?;
        ensure!(started.elapsed() < ANSWERED, "{:?}", started.elapsed());
        assert_eq!(answer, json!({ "nodes": 2, "missing": [NAMES[2]], "clients": 4 }));
        // Clients of other nodes receive the message immediately.
        for client in &mut clients {
            assert_eq!(client.expect(super::TARGET).await?, [json!("meanwhile")]);
        }
        for node in &scene.nodes[..2] {
            shows(node, |sight| sight.get(NAMES[2]).is_some_and(|state| state == "late")).await?;
            assert_eq!((counted(node, "late").await?, counted(node, "ready").await?), (1.0, 2.0));
        }
        page.see("nodes", "late").await?;
        scene.nodes[2].process.signal(Signal::Thaw).await?;
        scene.agrees(&NAMES).await?;
        for client in &mut at_frozen {
            assert_eq!(client.expect(super::TARGET).await?, [json!("meanwhile")], "what waited came first");
        }
        page.see_count("nodes", "tbody tr[data-state=open]", NAMES.len()).await?;
        browser.end().await?;
        clients.append(&mut at_frozen);
        got(&mut clients, &scene.nodes[1], &[]).await
    });
}

#[test]
fn a_node_without_an_app_server_is_a_member_that_starts() {
    run_test(async |fixture| {
        let mut scene = FleetScene::open(fixture, &["--hold-timeout", "60"]).await?;
        scene.app.process.kill().await?;
        for node in &scene.nodes {
            let states = NAMES.map(|name| (name, "starting"));
            sees(node, &states).await?;
        }
        scene.app.start_again(fixture).await?;
        for node in &scene.nodes {
            all_agree(node, &NAMES).await?;
        }
        Ok(())
    });
}
