//! Node with a configuration file, and app servers that report their names.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use trunkline_tests::harness::client::Client;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::until;
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::text;

const READS: &str = "trunkline_rule_reads_total";

pub(super) const HUBS: usize = 2;

#[derive(Debug)]
pub(super) struct RuledNode {
    file: PathBuf,
    pub(super) proxy: Proxy,
}

/// Starts an app server that reports this name.
pub(super) async fn named(fleet: &Fleet<'_>, name: &str) -> Result<AppServer> {
    fleet.app_with(App::Roles, &["--name", name]).await
}

/// Group in the syntax of the file.
pub(super) fn group(name: &str, app: &AppServer) -> String {
    format!("[groups.{name}]\nupstream = \"http://{}\"\n", app.address())
}

/// Routes in the syntax of the file.
pub(super) fn routes<const N: usize>(routes: [&str; N]) -> String {
    routes.map(|route| format!("[[routes]]\n{route}\n")).concat()
}

/// Name of the app server that serves a client.
pub(super) async fn home(client: &Client) -> Result<String> {
    let name = client.invoke("Name", json!([])).await?;
    Ok(name.as_str().context("a name")?.to_owned())
}

impl RuledNode {
    /// Starts a proxy with these app servers in its default group, and waits for their links.
    pub(super) async fn start(fleet: &Fleet<'_>, default: &[&AppServer], rules: &str, more: &[&str]) -> Result<Self> {
        let file = fleet.fixture().folder().join(format!("{}.toml", free_address()?));
        fs::write(&file, rules)?;
        let arguments = [&["--config", text(&file)?], more].concat();
        let upstreams: Vec<_> = default.iter().map(|app| app.address()).collect();
        let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &upstreams, &arguments)?;
        proxy.ready().await?;
        Ok(Self { file, proxy })
    }

    /// Starts it with one default app server and others, and waits for all their links.
    pub(super) async fn with_apps(fleet: &Fleet<'_>, default: &AppServer, apps: &[&str], rules: &str) -> Result<Self> {
        let node = Self::start(fleet, &[default], rules, &["--trust", "127.0.0.1"]).await?;
        for app in apps {
            node.linked(app, HUBS * POOL_SIZE).await?;
        }
        Ok(node)
    }

    /// Waits until this many links to an app server are open.
    pub(super) async fn linked(&self, app: &str, links: usize) -> Result<()> {
        until(async || Ok((self.links(app).await? >= links).then_some(()))).await
    }

    /// Number of open links to an app server, by its name.
    pub(super) async fn links(&self, app: &str) -> Result<usize> {
        // Whole numbers print without a decimal point; an empty sum is -0.
        Ok(self.metric("trunkline_links", &[("app", app), ("state", "open")]).await?.abs().to_string().parse()?)
    }

    pub(super) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum(name, labels))
    }

    /// Number of matches of a route.
    pub(super) async fn matches(&self, route: &str) -> Result<f64> {
        self.metric("trunkline_route_matches_total", &[("route", route)]).await
    }

    /// Changes the file, and waits until the node has read it with this outcome. The node checks periodically, or on
    /// SIGHUP.
    pub(super) async fn change(&self, rules: &str, outcome: &str, signal: Option<Signal>) -> Result<()> {
        let outcome = [("outcome", outcome)];
        let before = self.metric(READS, &outcome).await?;
        // Atomically, like editors and deployment tools.
        let next = self.file.with_extension("next");
        fs::write(&next, rules)?;
        fs::rename(&next, &self.file)?;
        if let Some(signal) = signal {
            self.proxy.process.signal(signal).await?;
        }
        until(async || Ok((self.metric(READS, &outcome).await? > before).then_some(()))).await
    }

    /// Activates other rules by SIGHUP.
    pub(super) async fn reload(&self, rules: &str) -> Result<()> {
        self.change(rules, "ok", Some(Signal::Hangup)).await
    }

    /// Name of the app server that answers a forwarded request.
    pub(super) async fn page(&self, path: &str) -> Result<String> {
        Ok(get(self.proxy.address(), path).await?.body)
    }

    pub(super) fn chat(&self) -> String {
        self.proxy.url("/chat")
    }
}
