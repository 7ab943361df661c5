//! App servers behind one DNS name: addresses change, and clients are distributed over the current ones.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy, stop};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{run_test, run_waiting_test, until};
use trunkline_tests::harness::sockets::free_address;

const NAME: &str = "app.test";
const HUB: &str = "/moves";
const CLIENTS: usize = 8;

/// Writes the addresses of the name.
fn list(hosts: &Path, addresses: &[&str]) -> Result<()> {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    // In place, because the file is mounted into the proxy's namespace.
    Ok(std::fs::write(hosts, format!("127.0.0.1 localhost\n{lines}"))?)
}

async fn app_at(fleet: &Fleet<'_>, ip: &str, port: &str) -> Result<AppServer> {
    let mut app = fleet.app_at(App::Moves, &format!("{ip}:{port}"), &[])?;
    app.listening().await?;
    Ok(app)
}

/// Number of these clients that each app server serves, by its instance.
async fn places(clients: &mut [RawClient]) -> Result<BTreeMap<String, usize>> {
    let mut places = BTreeMap::new();
    for client in clients {
        let who = client.call("Who", json!([])).await?;
        *places.entry(who["result"][0].as_str().context("an instance")?.to_owned()).or_default() += 1;
    }
    Ok(places)
}

async fn crowd(proxy: &Proxy) -> Result<Vec<RawClient>> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(RawClient::join(proxy.address(), HUB).await?);
    }
    Ok(clients)
}

#[test]
fn an_app_server_that_freezes_and_leaves_dns_is_given_up_before_the_resume_window() {
    run_waiting_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let address = free_address()?;
        let port = address.rsplit_once(':').context("a port")?.1;
        let hosts = fixture.folder().join("hosts");
        list(&hosts, &["127.0.0.2", "127.0.0.3"])?;
        let first = app_at(&fleet, "127.0.0.2", port).await?;
        let _second = app_at(&fleet, "127.0.0.3", port).await?;
        let upstream = format!("http://{NAME}:{port}");
        // The resume window is longer than a test, so the node must not wait for it.
        let settings = ["--resolve-interval", "60", "--resume-window", "300"];
        let proxy = fleet.proxy_at_name(&hosts, &upstream, &settings).await?;
        proxy.linked(2 * POOL_SIZE).await?;
        let mut clients = crowd(&proxy).await?;
        assert_eq!(places(&mut clients).await?.len(), 2);
        list(&hosts, &["127.0.0.3"])?;
        first.process.signal(Signal::Freeze).await?;
        // Calls to the frozen app server fail.
        until(async || Ok(places(&mut clients).await.is_ok_and(|places| places.len() == 1).then_some(()))).await
    });
}

#[test]
fn an_address_that_appears_gets_its_share_and_one_that_vanishes_hands_its_clients_over() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let address = free_address()?;
        let port = address.rsplit_once(':').context("a port")?.1;
        let hosts = fixture.folder().join("hosts");
        list(&hosts, &["127.0.0.2"])?;
        let mut first = app_at(&fleet, "127.0.0.2", port).await?;
        let upstream = format!("http://{NAME}:{port}");
        let proxy = fleet.proxy_at_name(&hosts, &upstream, &["--resolve-interval", "1"]).await?;
        proxy.linked(POOL_SIZE).await?;
        let mut early = crowd(&proxy).await?;
        assert_eq!(places(&mut early).await?.len(), 1);

        let second = app_at(&fleet, "127.0.0.3", port).await?;
        list(&hosts, &["127.0.0.2", "127.0.0.3"])?;
        proxy.linked(2 * POOL_SIZE).await?;
        let mut late = crowd(&proxy).await?;
        assert_eq!(places(&mut early).await?.len(), 1, "each stays where it is");
        let of_late = places(&mut late).await?;
        assert_eq!(of_late.into_values().collect::<Vec<_>>(), [CLIENTS / 2, CLIENTS / 2]);

        // Like a deployment: the address leaves DNS, and then the app server is stopped.
        list(&hosts, &["127.0.0.3"])?;
        stop(&mut first.process, Signal::Terminate).await?;
        let mut all: Vec<RawClient> = early.into_iter().chain(late).collect();
        assert_eq!(places(&mut all).await?.into_values().collect::<Vec<_>>(), [2 * CLIENTS]);
        assert_eq!(second.process.lines_after("rehomed ").len(), CLIENTS + CLIENTS / 2);
        until(async || {
            let metrics = proxy.metrics().await?;
            let links = ["open", "resuming", "down"].map(|state| metrics.sum("trunkline_links", &[("state", state)]));
            Ok((links == [POOL_SIZE as f64, 0.0, 0.0]).then_some(()))
        })
        .await?;
        assert_eq!(proxy.metrics().await?.sum("trunkline_client_connections_closed_total", &[]), 0.0);
        Ok(())
    });
}
