//! Process of the Management SDK, which runs each of its operations once and prints the results.

use anyhow::{Result, ensure};

use crate::harness::process::Process;
use crate::harness::scenario::Fixture;

use super::programs::DotNet;

/// Program of the Management SDK. Some archives lack it, because its package is not available everywhere.
pub(super) const PROGRAM: &str = "manage/signalr-manage.dll";

/// Transport of the Management SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceTransport {
    /// Requests to the REST data plane.
    Transient,
    /// A separate server connection.
    Persistent,
}

impl ServiceTransport {
    fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Persistent => "persistent",
        }
    }
}

impl DotNet {
    /// Runs the Management SDK against a hub, with a connection as its target and `ann` as the user. Returns the output
    /// lines without log lines.
    pub async fn manage(
        &self,
        fixture: &Fixture,
        transport: ServiceTransport,
        connection_string: &str,
        hub: &str,
        target: &str,
    ) -> Result<Vec<String>> {
        let mut command = self.command(PROGRAM);
        command.args(["--connection", connection_string, "--transport", transport.name()]);
        command.args(["--hub", hub, "--target", target, "--user", "ann"]);
        let mut process = Process::start(fixture, "manage", command)?;
        process.wait_for_line("close nobody: ").await?;
        let status = process.ended().await?;
        ensure!(status.success(), "{status}\n{}", process.log());
        let log_levels = ["info: ", "warn: ", "fail: ", "dbug: ", "      "];
        let lines = process.lines_after("").into_iter();
        Ok(lines.filter(|line| !log_levels.iter().any(|level| line.starts_with(level))).collect())
    }
}
