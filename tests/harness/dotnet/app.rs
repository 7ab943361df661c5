//! Process of a real ASP.NET Core app server on Azure's SDK.

use anyhow::{Context, Result};
use http::StatusCode;

use crate::harness::http_client::post;
use crate::harness::process::Process;
use crate::harness::scenario::{Fixture, until};
use crate::harness::sockets::free_address;

use super::programs::DotNet;

/// Assembly of the app server.
pub const APP: &str = "app/signalr-app.dll";

/// Description of an app server to start.
#[derive(Debug)]
#[must_use]
pub struct AspNetAppBuilder<'a> {
    dotnet: &'a DotNet,
    fixture: &'a Fixture,
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl DotNet {
    /// Describes an app server.
    pub fn app<'a>(&'a self, fixture: &'a Fixture) -> AspNetAppBuilder<'a> {
        self.app_of(fixture, APP).argument("--mode", "azure")
    }

    pub(super) fn app_of<'a>(&'a self, fixture: &'a Fixture, program: &'static str) -> AspNetAppBuilder<'a> {
        AspNetAppBuilder { dotnet: self, fixture, program, arguments: Vec::new(), environment: Vec::new() }
    }
}

impl AspNetAppBuilder<'_> {
    /// Sets the only endpoint.
    pub fn connection(self, connection_string: &str) -> Self {
        self.argument("--connection", connection_string)
    }

    /// Adds a named primary endpoint, for apps with several.
    pub fn endpoint(mut self, name: &str, connection_string: &str) -> Self {
        let variable = format!("Azure__SignalR__ConnectionString__{name}__primary");
        self.environment.push((variable, connection_string.into()));
        self
    }

    /// Sets the instance name reported by the hub.
    pub fn instance(mut self, name: &str) -> Self {
        self.environment.push(("INSTANCE".into(), name.into()));
        self
    }

    /// Adds a command line argument, such as `--shutdown migrate`.
    pub fn argument(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.into(), value.into()]);
        self
    }

    /// Starts the app server and waits until it listens. Its server connections may not be open yet.
    pub async fn start(self) -> Result<AspNetApp> {
        let address = free_address()?;
        let mut command = self.dotnet.command(self.program);
        command.args(["--urls", &format!("http://{address}")]).args(&self.arguments);
        command.envs(self.environment);
        let mut process = Process::start(self.fixture, "aspnet", command)?;
        process.wait_for_line("listening on").await?;
        Ok(AspNetApp { process, address })
    }
}

/// Running ASP.NET Core app, stopped on drop.
#[derive(Debug)]
pub struct AspNetApp {
    /// Process that runs it.
    pub process: Process,
    address: String,
}

impl AspNetApp {
    /// Listen address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// URL for clients, which are redirected to an endpoint.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until it redirects clients of a hub, which requires an open server connection for that hub.
    pub async fn redirects(&mut self, hub: &str) -> Result<()> {
        let path = format!("{hub}/negotiate?negotiateVersion=1");
        until(async || {
            anyhow::ensure!(self.process.is_running(), "{}", self.process.log());
            Ok((post(&self.address, &path).await?.status == StatusCode::OK).then_some(()))
        })
        .await
        .with_context(|| format!("{hub} of {}", self.address))
    }

    /// Number of lines `connected …` (or `disconnected …`) printed by its hubs.
    #[must_use]
    pub fn printed(&self, word: &str) -> usize {
        self.process.lines_after(&format!("{word} ")).len()
    }
}
