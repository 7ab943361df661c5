//! The whole layout as run by `deploy/local`: two tabs of the status page, two nodes and two app servers, of which one
//! node ends.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use trunkline_tests::harness::browser::{Browser, Page};
use trunkline_tests::harness::http_client;
use trunkline_tests::harness::local::Local;
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{run_heavy_test, until};
use trunkline_tests::harness::tools::run;

/// Number of requests after which each node and each app server must have answered.
const REQUESTS: usize = 8;

/// Maximum number of tabs until both nodes have one: the balancer also serves other requests.
const TABS_MAX: usize = 8;

/// App servers and nodes that answered these requests.
async fn ask(local: &Local, requests: usize) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut apps, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..requests {
        let answer = http_client::get(local.front(), "/api").await?;
        ensure!(answer.status.is_success(), "{answer:?}");
        nodes.insert(answer.header("x-trunkline-node").context("no node")?.to_owned());
        apps.insert(answer.body);
    }
    Ok((apps, nodes))
}

fn both(name: &str) -> BTreeSet<String> {
    [1, 2].map(|number| format!("{name}-{number}")).into()
}

async fn tabs(local: &Local, browser: &Browser) -> Result<Vec<(String, Page)>> {
    let mut tabs = Vec::new();
    while local.clients().await?.contains(&0.0) {
        ensure!(tabs.len() < TABS_MAX, "all {TABS_MAX} tabs are at one node");
        let name = format!("tab-{}", tabs.len());
        let page = browser.open(&name, &format!("http://{}/?name={name}", local.front())).await?;
        page.see("state", "Connected").await?;
        tabs.push((name, page));
    }
    Ok(tabs)
}

/// Waits until each node shows both nodes and reports that they agree.
async fn form_a_fleet(local: &Local) -> Result<()> {
    for node in [1, 2] {
        let admin = local.admin(node)?;
        until(async || {
            let fleet = http_client::get(&admin, "/api/fleet").await?.json()?;
            let nodes = fleet["nodes"].as_array().context("nodes")?;
            let ready = nodes.iter().filter(|node| node["state"] == "ready");
            let names: BTreeSet<_> = ready.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect();
            Ok((names == both("node") && fleet["agree"] == true).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn see_each_other(tabs: &[(String, Page)]) -> Result<()> {
    for (_, page) in tabs {
        for (name, _) in tabs {
            page.see("names", name).await?;
        }
    }
    Ok(())
}

#[test]
fn two_tabs_at_two_nodes_see_each_other_and_the_rest_carries_on_when_a_node_is_killed() {
    run_heavy_test(async |fixture| {
        let mut local = Local::start(fixture).await?;
        // A node is ready with one app server; the links to the other one may open slightly later.
        until(async || Ok((ask(&local, REQUESTS).await? == (both("app"), both("node"))).then_some(()))).await?;
        form_a_fleet(&local).await?;
        let browser = Browser::start(fixture)?;
        let tabs = tabs(&local, &browser).await?;
        see_each_other(&tabs).await?;
        let (_, page) = tabs.first().context("no tab")?;
        page.see("api", "through node node-").await?;

        let killed = local.process_of("node-1")?;
        run(Command::new("sh").args(["-c", &format!("kill -s KILL {killed}")])).await?;
        local.process.wait_for_line("node-1: has ended").await?;
        // No further request fails, although the balancer detects the loss only at its next check.
        let (apps, nodes) = ask(&local, REQUESTS).await?;
        assert_eq!((apps, nodes), (both("app"), ["node-2".to_owned()].into()));
        for (_, page) in &tabs {
            page.see("state", "Connected").await?;
        }
        until(async || {
            let Ok(metrics) = Metrics::of(&local.admin(2)?).await else { return Ok(None) };
            Ok((metrics.sum("trunkline_client_connections", &[]) == tabs.len() as f64).then_some(()))
        })
        .await?;
        // Existing clients see each new one. (Their own names are not checked, because app servers later remove the
        // dead node's clients.)
        let _late = browser.open("late", &format!("http://{}/?name=late", local.front())).await?;
        for (_, page) in &tabs {
            page.see("names", "late").await?;
        }
        browser.end().await?;
        local.end().await
    });
}

#[test]
fn prometheus_scrapes_both_nodes_and_both_app_servers_and_knows_the_rules() {
    run_heavy_test(async |fixture| {
        let local = Local::start(fixture).await?;
        let targets = until(async || {
            let answer = http_client::get(local.prometheus(), "/api/v1/targets?state=active").await;
            let Ok(answer) = answer.and_then(|answer| answer.json()) else { return Ok(None) };
            let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
            let is_done = targets.len() == 4 && targets.iter().all(|target| target["health"] != "unknown");
            Ok(is_done.then_some(targets))
        })
        .await?;
        for target in &targets {
            assert_eq!(target["health"], "up", "{target}");
        }
        let jobs: Vec<_> = targets.iter().filter_map(|target| target["labels"]["job"].as_str()).collect();
        for job in ["trunkline", "trunkline-app"] {
            assert_eq!(jobs.iter().filter(|own| **own == job).count(), 2, "{jobs:?}");
        }
        let rules = http_client::get(local.prometheus(), "/api/v1/rules").await?.json()?;
        let groups = rules["data"]["groups"].as_array().context("groups")?;
        assert_eq!(groups.len(), 2);
        assert!(http_client::get(local.statistics(), "/").await?.body.contains("node-1"));
        local.end().await
    });
}
