//! Programs of the archive on .NET 11: an app with many features, a client that tests each, and a probe of the service
//! protocol.

use anyhow::Result;

use crate::harness::process::Process;
use crate::harness::scenario::Fixture;

use super::app::AspNetAppBuilder;
use super::programs::DotNet;

impl DotNet {
    /// Describes an app server with many features, for `--mode azure`, or `--mode alone` on Kestrel.
    pub fn field_app<'a>(&'a self, fixture: &'a Fixture, mode: &str) -> AspNetAppBuilder<'a> {
        self.app_of(fixture, "app/field-app.dll").argument("--mode", mode)
    }

    /// Runs a section of the client against an app, up to the named row. Returns the rows: names and values.
    pub async fn field_rows(
        &self,
        fixture: &Fixture,
        app: &str,
        arguments: &[&str],
        last: &str,
    ) -> Result<Vec<(String, String)>> {
        let mut command = self.command("client/field-client.dll");
        command.args(arguments).env("BASE", app);
        let mut process = Process::start(fixture, "field-client", command)?;
        process.wait_for_line(&format!(" | {last} | ")).await?;
        let lines = process.lines_after("").into_iter();
        let rows = lines.filter_map(|line| {
            let (name, value) = line.split_once(" | ")?.1.split_once(" | ")?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(rows.collect())
    }

    /// Runs the probe against a node with this access key. Returns its output lines.
    pub async fn probe(&self, fixture: &Fixture, node: &str, key: &str) -> Result<Vec<String>> {
        let mut command = self.command("probe/probe.dll");
        command.args([node, key]);
        let mut process = Process::start(fixture, "probe", command)?;
        process.wait_for_line("pings seen: ").await?;
        Ok(process.lines_after(""))
    }
}
