//! An auction while processes end: two app servers and two nodes behind the shipped HAProxy configuration, official
//! clients.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::client::CLIENTS_FOLDER;
use trunkline_tests::harness::driver::Driver;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy, stop};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, is_full, run_heavy_test, until};
use trunkline_tests::harness::shipped::{BalancerProduct, LoadBalancer, Shipped};
use trunkline_tests::harness::sockets::free_address;

/// Answered bids of each bidder before, between and after ends of processes.
const BIDS_PER_BIDDER: u64 = 5;

/// Arguments that `haproxy.cfg` requires of nodes, with enough time to drain.
const NODE: [&str; 8] =
    ["--trust", "127.0.0.1/32", "--poll-timeout", "40", "--drain-grace", "5", "--drain-timeout", "10"];

struct House {
    apps: Vec<AppServer>,
    nodes: Vec<Proxy>,
    balancer: LoadBalancer,
    bidders: Arc<Driver>,
    count: u64,
}

impl House {
    async fn open(fixture: &Fixture, count: u64) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let store = fixture.folder().join("bids.jsonl");
        let of_app = ["--store", store.to_str().context("a path")?];
        let apps = vec![fleet.app_with(App::Auction, &of_app).await?, fleet.app_with(App::Auction, &of_app).await?];
        let upstreams: Vec<&str> = apps.iter().map(AppServer::address).collect();
        let admins = [free_address()?, free_address()?];
        let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
        let more = [NODE.as_slice(), &["--peers", &peers]].concat();
        let mut nodes = Vec::new();
        for admin in &admins {
            nodes.push(fleet.proxy_of(&free_address()?, admin, &upstreams, &more)?);
        }
        let balancer = Shipped::read(BalancerProduct::HaProxy)?.start(fixture, &nodes).await?;
        let mut house = Self { apps, balancer, nodes, bidders: driver(fixture)?, count };
        for node in &mut house.nodes {
            node.ready().await?;
        }
        house.is_whole().await?;
        let url = house.balancer.url("/auction");
        house.ask("start", json!({ "url": url, "clients": count, "lots": count / 10 + 1 })).await?;
        Ok(house)
    }

    async fn ask(&self, op: &str, options: Value) -> Result<Value> {
        self.bidders.command(op, options).await?.map_err(anyhow::Error::msg)
    }

    /// Waits until each node has all links to both app servers and both nodes see each other.
    async fn is_whole(&self) -> Result<()> {
        for node in &self.nodes {
            node.linked(2 * POOL_SIZE).await?;
            until(async || {
                let ready = node.metrics().await?.sum("trunkline_fleet_nodes", &[("state", "ready")]);
                Ok((ready == 2.0).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until each bidder has made several more bids. Returns the counts since the last call.
    async fn bids_go_on(&self) -> Result<Value> {
        let mut sum = self.ask("count", json!({})).await?;
        let goal = bids(&sum) + BIDS_PER_BIDDER * self.count;
        until(async || {
            let more = self.ask("count", json!({})).await?;
            add(&mut sum, &more);
            Ok((bids(&sum) >= goal).then_some(()))
        })
        .await?;
        Ok(sum)
    }
}

fn driver(fixture: &Fixture) -> Result<Arc<Driver>> {
    let mut command = Command::new("node");
    command.arg(Path::new(CLIENTS_FOLDER).join("js/auction.mjs"));
    Driver::start(fixture, "bidders", command)
}

fn bids(counts: &Value) -> u64 {
    counts["bids"].as_u64().unwrap_or_default()
}

/// Adds counts. Bids and pushes are already totals.
fn add(sum: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        let before = if key == "bids" || key == "pushes" { 0 } else { sum[key].as_u64().unwrap_or_default() };
        sum[key] = json!(before + value.as_u64().unwrap_or_default());
    }
}

fn demand_none(counts: &Value, keys: &[&str], when: &str) -> Result<()> {
    for key in keys {
        ensure!(counts[key].as_u64().unwrap_or_default() == 0, "{key}, {when}: {counts}");
    }
    Ok(())
}

/// Faults that no client may see, whichever process ends.
const NEVER: [&str; 7] =
    ["unrecorded", "doubled", "hung", "closed", "storedTwice", "answeredNotStored", "storedNotAnswered"];

/// Faults that no client may see after a planned stop.
const NEVER_PLANNED: [&str; 3] = ["failed", "reconnects", "caughtUp"];

#[test]
fn bids_are_placed_once_whatever_process_ends() {
    run_heavy_test(async |fixture| {
        let mut house = House::open(fixture, if is_full() { 50 } else { 12 }).await?;
        let signals = [Signal::Terminate, Signal::Kill];
        for signal in signals {
            for number in 0..2 {
                end(&mut house.apps[number].process, signal).await?;
                house.apps[number].start_again(fixture).await?;
                house.is_whole().await?;
                demand(&house.bids_go_on().await?, signal, "app server")?;
            }
        }
        for signal in signals {
            for number in 0..2 {
                end(&mut house.nodes[number].process, signal).await?;
                house.nodes[number].start_again(fixture).await?;
                house.is_whole().await?;
                demand(&house.bids_go_on().await?, signal, "node")?;
            }
        }
        let last = house.ask("finish", json!({})).await?;
        demand_none(&last, &NEVER, "at the end")?;
        demand_none(&last, &NEVER_PLANNED, "at the end")
    });
}

/// Ends a process. After a planned stop its exit status must be success.
async fn end(process: &mut Process, signal: Signal) -> Result<()> {
    if signal == Signal::Kill { process.kill().await } else { stop(process, signal).await }
}

fn demand(counts: &Value, signal: Signal, what: &str) -> Result<()> {
    let when = format!("{signal:?} of a {what}");
    eprintln!("{when}: {counts}");
    demand_none(counts, &NEVER, &when)?;
    if signal == Signal::Kill { Ok(()) } else { demand_none(counts, &NEVER_PLANNED, &when) }
}
