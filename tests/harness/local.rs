//! The whole layout as plain processes, as started by `deploy/local/run`, in a separate process group.

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::harness::demo::processes_of_group;
use crate::harness::metrics::Metrics;
use crate::harness::process::{Process, Signal};
use crate::harness::scenario::{Fixture, profile_folder};
use crate::harness::sockets::free_address;
use crate::harness::tools::shipped;

/// Last line printed when everything is running.
const INVITATION_END: &str = "Ctrl-C ends all processes.";

/// Processes of the local layout, stopped on drop.
#[derive(Debug)]
pub struct Local {
    /// Process of the script, leader of the group.
    pub process: Process,
    group: u32,
    front: String,
    statistics: String,
    prometheus: String,
    admins: [String; 2],
}

impl Local {
    /// Starts the layout built with the tests, and waits until everything is running.
    pub async fn start(fixture: &Fixture) -> Result<Self> {
        let two = || Ok::<_, anyhow::Error>([free_address()?, free_address()?]);
        let (front, statistics, prometheus) = (free_address()?, free_address()?, free_address()?);
        let (nodes, admins, apps) = (two()?, two()?, two()?);
        // A shell can't reset an ignored signal, such as Ctrl-C's when tests run in the background.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(shipped("local/run"));
        command.env("PROGRAMS", profile_folder()?).env("TMPDIR", fixture.folder()).process_group(0);
        command.env("FRONT", &front).env("STATISTICS", &statistics).env("PROMETHEUS", &prometheus);
        command.env("NODES", nodes.join(" ")).env("ADMINS", admins.join(" ")).env("APPS", apps.join(" "));
        let process = Process::start(fixture, "local", command)?;
        let group = process.id()?;
        let mut local = Self { process, group, front, statistics, prometheus, admins };
        local.process.wait_for_line(INVITATION_END).await?;
        Ok(local)
    }

    /// Address of the load balancer as `host:port`.
    #[must_use]
    pub fn front(&self) -> &str {
        &self.front
    }

    /// Address of HAProxy's statistics page as `host:port`.
    #[must_use]
    pub fn statistics(&self) -> &str {
        &self.statistics
    }

    /// Address of Prometheus as `host:port`.
    #[must_use]
    pub fn prometheus(&self) -> &str {
        &self.prometheus
    }

    /// Admin address of a node (from 1) as `host:port`.
    pub fn admin(&self, node: usize) -> Result<String> {
        self.admins.get(node.wrapping_sub(1)).cloned().with_context(|| format!("no node {node}"))
    }

    /// Number of clients at each node.
    pub async fn clients(&self) -> Result<[f64; 2]> {
        let [first, second] = &self.admins;
        let clients = |metrics: Metrics| metrics.sum("trunkline_client_connections", &[]);
        Ok([clients(Metrics::of(first).await?), clients(Metrics::of(second).await?)])
    }

    /// Process id printed by the script for this name.
    pub fn process_of(&self, name: &str) -> Result<u32> {
        let lines = self.process.lines_after(&format!("{name}: pid "));
        let line = lines.first().with_context(|| format!("no {name}"))?;
        Ok(line.split(',').next().unwrap_or_default().parse()?)
    }

    /// Ends the layout like Ctrl-C, and checks that no process remains.
    pub async fn end(mut self) -> Result<()> {
        self.process.signal_group(Signal::Interrupt).await?;
        let status = self.process.ended().await?;
        anyhow::ensure!(status.success(), "it ended with {status}\n{}", self.process.log());
        let left = processes_of_group(self.group)?;
        anyhow::ensure!(left.is_empty(), "{left:?} were left behind");
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Children must not outlive a failed test. Children that already ended are not an error.
        for process in processes_of_group(self.group).unwrap_or_default() {
            let script = format!("kill -s KILL {process}");
            drop(std::process::Command::new("sh").args(["-c", &script]).output());
        }
    }
}
