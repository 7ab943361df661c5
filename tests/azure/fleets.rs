//! Fleets behind one address: each node gets server connections of each app, and messages reach clients of all nodes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::timeout;
use trunkline_tests::harness::dotnet::{AspNetApp, run_heavy_dotnet_test};
use trunkline_tests::harness::fleet::{Fleet, Proxy};
use trunkline_tests::harness::scenario::{Fixture, named, until};
use trunkline_tests::harness::shipped::{BalancerProduct, LoadBalancer, Shipped};
use trunkline_tests::harness::sockets::free_address;

use crate::dial_in::{DialIn, KEY};
use crate::guest::{Guest, Host, LIBRARIES};

const HUBS: [&str; 2] = ["bench", "bench2"];

/// Nodes that form a fleet, behind the shipped HAProxy configuration.
pub(crate) struct Address {
    pub(crate) dial_ins: Vec<DialIn>,
    pub(crate) balancer: LoadBalancer,
}

impl Address {
    pub(crate) async fn open(fixture: &Fixture) -> Result<Self> {
        let dial_ins = start_all(fixture).await?;
        let shipped = Shipped::read(BalancerProduct::HaProxy)?;
        let balancer = shipped.start(fixture, dial_ins.iter().map(|dial_in| &dial_in.node)).await?;
        Ok(Self { dial_ins, balancer })
    }

    /// Waits until each node has server connections of this many apps, for each hub.
    pub(super) async fn linked(&self, apps: usize) -> Result<()> {
        linked(&self.dial_ins, apps).await
    }

    /// Connects clients of both libraries to all nodes in turn, until each node has two.
    async fn guests(&self, host: &Host<'_>, app: &AspNetApp) -> Result<Vec<Guest>> {
        let mut guests = Vec::new();
        for number in 0..2 * self.dial_ins.len() {
            let library = LIBRARIES[number % LIBRARIES.len()];
            guests.push(host.invite(library, app, &format!("user-{number}")).await?);
        }
        Ok(guests)
    }
}

/// Starts three nodes as one fleet.
async fn start_all(fixture: &Fixture) -> Result<Vec<DialIn>> {
    let fleet = Fleet::with_keys(fixture, KEY);
    let admins = [free_address()?, free_address()?, free_address()?];
    let mut dial_ins = Vec::new();
    for number in 0..admins.len() {
        dial_ins.push(start(&fleet, &admins, number).await?);
    }
    Ok(dial_ins)
}

/// Waits until each node has server connections of this many apps, for each hub.
async fn linked(dial_ins: &[DialIn], apps: usize) -> Result<()> {
    for dial_in in dial_ins {
        let all = until(async || Ok((apps_of(&dial_in.node).await? >= apps).then_some(())));
        named(format!("server connections of {apps} apps at {}", dial_in.address()), all).await?;
    }
    Ok(())
}

async fn start(fleet: &Fleet<'_>, admins: &[String], number: usize) -> Result<DialIn> {
    let peers: Vec<String> = admins.iter().map(|admin| format!("http://{admin}")).collect();
    let mut more = vec!["--trust", "127.0.0.1/32"];
    more.extend(peers.iter().flat_map(|peer| ["--peers", peer]));
    DialIn::open_in(fleet, &admins[number], &format!("dial-in-{number}"), &more).await
}

/// Number of apps with server connections at a node: the minimum over all hubs.
async fn apps_of(node: &Proxy) -> Result<usize> {
    let metrics = node.metrics().await?;
    let apps = HUBS.map(|hub| metrics.distinct("trunkline_links", "app", &[("hub", hub), ("state", "open")]));
    Ok(apps.into_iter().min().unwrap_or(0))
}

/// Asserts that what one guest sends to everyone, and to a group of all guests, reaches each guest once and in order.
async fn reaches_all(guests: &mut [Guest]) -> Result<()> {
    for guest in guests.iter() {
        guest.invoke("Join", json!(["all"])).await?;
    }
    const SENDS: usize = 20;
    // Other nodes receive interest with a delay, so each guest sends until all others have received something.
    for sender in 0..guests.len() {
        all_receive(guests, sender).await?;
    }
    for number in 0..SENDS {
        let target =
            if number % 2 == 0 { json!(["Broadcast", [number]]) } else { json!(["SendToGroup", ["all", number]]) };
        let method = target[0].as_str().unwrap_or_default().to_owned();
        guests[0].invoke(&method, target[1].clone()).await?;
    }
    for (place, guest) in guests.iter_mut().enumerate() {
        for number in 0..SENDS {
            let came = loop {
                let came = guest.expect("Message").await?;
                // Skips repetitions from that wait.
                if !came.is_string() {
                    break came;
                }
            };
            ensure!(came == number, "guest {place} got {came} where {number} was due");
        }
    }
    Ok(())
}

/// Sends until each guest has received something from this sender through the group. After that, no message is missed.
async fn all_receive(guests: &mut [Guest], sender: usize) -> Result<()> {
    for place in 0..guests.len() {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let text = format!("{sender} to {place}, {attempt}");
            guests[sender].invoke("SendToGroup", json!(["all", text])).await?;
            let next = timeout(Duration::from_millis(500), guests[place].expect("Message")).await;
            if next.is_ok() {
                next??;
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn three_nodes_behind_one_address_get_server_connections_of_each_app_and_are_one_to_their_clients() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let address = Address::open(fixture).await?;
        let host = Host::new(fixture, dotnet);
        let one = host.app_at(address.balancer.address(), "one", &[]).await?;
        address.linked(1).await?;
        let two = host.app_at(address.balancer.address(), "two", &[]).await?;
        address.linked(2).await?;
        let mut guests = address.guests(&host, &one).await?;
        guests.extend(address.guests(&host, &two).await?);
        reaches_all(&mut guests).await?;
        // Client results work across nodes and app servers.
        for asked in &guests {
            ensure!(guests[0].invoke("Ask", json!([asked.id()?, "what"])).await? == 42);
        }
        for guest in &mut guests {
            guest.close().await?;
        }
        Ok(())
    });
}

#[test]
fn a_third_node_that_joins_gets_server_connections_within_seconds() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let mut address = Address::open(fixture).await?;
        // The balancer is already configured with its address; its process starts later.
        address.dial_ins[2].node.process.kill().await?;
        let mut third = address.dial_ins.remove(2);
        let host = Host::new(fixture, dotnet);
        let app = host.app_at(address.balancer.address(), "one", &[]).await?;
        address.linked(1).await?;
        // The balancer has to detect that the killed node is down and that the others are ready.
        let seen = async || address.balancer.has_found(&["node-1", "node-2"], &["node-3"]).await;
        until(async || Ok(seen().await?.then_some(()))).await?;
        let mut guests = address.guests(&host, &app).await?;
        third.node.start_again(fixture).await?;
        address.dial_ins.push(third);
        address.linked(1).await?;
        guests.extend(address.guests(&host, &app).await?);
        reaches_all(&mut guests).await
    });
}
