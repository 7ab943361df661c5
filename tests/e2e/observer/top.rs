//! `trunkline top`: the same numbers in a terminal.

use anyhow::Result;
use tokio::process::Command;
use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::{profile_folder, run_test, until};
use trunkline_tests::harness::sockets::free_address;

use super::{ADMIN_TOKEN, NODES, ObserverScene};

async fn top(arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    let output = command.arg("top").args(arguments).arg("--once").output().await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[test]
fn one_node_or_all_show_the_whole_fleet_and_each_node_once() {
    run_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for number in 0..4 {
            clients.push(scene.client(&agents, number).await?);
        }
        let admins: Vec<&str> = scene.proxies.iter().map(|proxy| proxy.admin()).collect();
        for urls in [&admins[..1], &admins[..]] {
            let (is_good, text) = top(urls).await?;
            assert!(is_good && text.contains("3 nodes, 2 app servers, 30 of 30 links open   4 clients"), "{text}");
            for name in NODES {
                assert_eq!(text.lines().filter(|line| line.starts_with(name)).count(), 1, "{text}");
            }
            let proxy_a = text.lines().find(|line| line.starts_with(NODES[0])).unwrap_or_default();
            assert_eq!(proxy_a.split_whitespace().collect::<Vec<_>>()[1..5], ["ready", "0", "ms", "2"], "{text}");
            assert!(text.lines().any(|line| line.split_whitespace().take(2).eq(["bench", "4"])), "{text}");
        }
        Ok(())
    });
}

#[test]
fn what_is_wrong_is_told() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let (address, admin) = (free_address()?, free_address()?);
        let everywhere = admin.replace("127.0.0.1", "0.0.0.0");
        let mut proxy = fleet.proxy_of(&address, &everywhere, &[app.address()], &["--admin-token", ADMIN_TOKEN])?;
        proxy.process.wait_for_line(&format!("admin on http://{everywhere}")).await?;
        let nobody = free_address()?;
        for (arguments, told) in [
            (vec![admin.as_str()], "--admin-token is required"),
            (vec![admin.as_str(), "--admin-token", "not-the-token-at-all"], "wrong --admin-token"),
            (vec![admin.as_str(), "--admin-token", "short"], "--admin-token must have from 16"),
            (vec![nobody.as_str()], nobody.as_str()),
            (vec!["ftp://x"], "\"ftp://x\" is not a URL"),
        ] {
            let (is_good, text) = top(&arguments).await?;
            assert!(!is_good && text.contains(told), "{arguments:?}: {text}");
        }
        // As soon as the app server runs, because before that nothing answers behind the port.
        until(async || {
            let (is_good, text) = top(&[&address]).await?;
            Ok((!is_good && text.contains("is not an admin port")).then_some(()))
        })
        .await?;
        assert!(top(&[&admin, "--admin-token", ADMIN_TOKEN]).await?.0);
        Ok(())
    });
}
