//! Discovery of nodes: through a known node, through themselves, through two addresses.

use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::demo::{Addresses, Demo};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::scenario::{run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;

use super::{FleetScene, NAMES, all_agree, got, reaches, ready, sight, to_all};

#[test]
fn a_node_that_knows_one_of_the_others_is_found_by_all() {
    run_test(async |fixture| {
        let mut scene = FleetScene::open(fixture, &[]).await?;
        let known = scene.nodes[1].admin().to_owned();
        scene.start("node-d", &free_address()?, &[&known], &[])?;
        scene.nodes[3].ready().await?;
        let names = [NAMES.as_slice(), &["node-d"]].concat();
        scene.agrees(&names).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        for place in [0, 3] {
            reaches(&scene.nodes[place], &to_all("welcome"), names.len(), clients.len()).await?;
        }
        got(&mut clients, &scene.nodes[2], &["welcome", "welcome"]).await
    });
}

#[test]
fn a_node_that_names_itself_and_others_twice_has_each_once() {
    run_test(async |fixture| {
        let mut scene = FleetScene::begin(fixture, &[], &[]).await?;
        let admins = [free_address()?, free_address()?];
        let by_name = admins.clone().map(|admin| admin.replace("127.0.0.1", "localhost"));
        let peers: Vec<&str> = admins.iter().chain(&by_name).map(String::as_str).collect();
        let names = ["node-a", "node-b"];
        for (name, admin) in names.iter().zip(&admins) {
            scene.start(name, admin, &peers, &[])?;
        }
        for node in &mut scene.nodes {
            node.ready().await?;
            all_agree(node, &names).await?;
        }
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        for node in &scene.nodes {
            reaches(node, &to_all("once"), names.len(), clients.len()).await?;
        }
        got(&mut clients, &scene.nodes[0], &["once", "once"]).await
    });
}

#[test]
fn a_node_that_names_only_itself_is_a_fleet_of_one() {
    run_test(async |fixture| {
        let scene = FleetScene::begin(fixture, &["alone"], &[]).await?;
        scene.agrees(&["alone"]).await?;
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        reaches(&scene.nodes[0], &to_all("to myself"), 1, clients.len()).await?;
        got(&mut clients, &scene.nodes[0], &["to myself"]).await
    });
}

#[test]
fn nodes_of_the_demo_are_a_fleet_by_the_development_key() {
    run_heavy_test(async |fixture| {
        let mut demo = Demo::start(fixture, Addresses::free()?)?;
        demo.invites().await?;
        for admin in &demo.addresses().admins {
            until(async || {
                let fleet = get(admin, "/api/fleet").await?.json()?;
                Ok((fleet["agree"] == true && sight(&fleet)? == ready(&["proxy-1", "proxy-2"])).then_some(()))
            })
            .await?;
        }
        Ok(())
    });
}
