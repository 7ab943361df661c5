//! The whole layout as plain processes, as `deploy/local/run` starts it: in a process group of its own.

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::harness::demo::processes_of_group;
use crate::harness::metrics::Metrics;
use crate::harness::process::{Process, Signal};
use crate::harness::scenario::{Stage, profile_folder};
use crate::harness::sockets::free_address;
use crate::harness::tools::shipped;

/// The last line of what it prints when everything runs.
const INVITATION_END: &str = "Ctrl-C ends it all.";

/// Layout that runs until this value is dropped.
#[derive(Debug)]
pub struct Local {
    /// The script's process, which leads the group.
    pub process: Process,
    group: u32,
    front: String,
    statistics: String,
    prometheus: String,
    admins: [String; 2],
}

impl Local {
    /// Starts it with what was built beside the tests, and waits until everything runs.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(stage: &Stage) -> Result<Self> {
        let two = || Ok::<_, anyhow::Error>([free_address()?, free_address()?]);
        let (front, statistics, prometheus) = (free_address()?, free_address()?, free_address()?);
        let (nodes, admins, apps) = (two()?, two()?, two()?);
        // A shell can't undo that a signal is ignored, as Ctrl-C's is where the tests run in the background.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(shipped("local/run"));
        command.env("PROGRAMS", profile_folder()?).env("TMPDIR", stage.folder()).process_group(0);
        command.env("FRONT", &front).env("STATISTICS", &statistics).env("PROMETHEUS", &prometheus);
        command.env("NODES", nodes.join(" ")).env("ADMINS", admins.join(" ")).env("APPS", apps.join(" "));
        let process = Process::start(stage, "local", command)?;
        let group = process.id()?;
        let mut local = Self { process, group, front, statistics, prometheus, admins };
        local.process.wait_for_line(INVITATION_END).await?;
        Ok(local)
    }

    /// `host:port` of the load balancer.
    #[must_use]
    pub fn front(&self) -> &str {
        &self.front
    }

    /// `host:port` of HAProxy's page.
    #[must_use]
    pub fn statistics(&self) -> &str {
        &self.statistics
    }

    /// Prometheus's address, as `host:port`.
    #[must_use]
    pub fn prometheus(&self) -> &str {
        &self.prometheus
    }

    /// `host:port` of a node's admin port, from 1.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn admin(&self, node: usize) -> Result<String> {
        self.admins.get(node.wrapping_sub(1)).cloned().with_context(|| format!("no node {node}"))
    }

    /// Number of clients of each node.
    ///
    /// # Errors
    /// When one does not tell.
    pub async fn clients(&self) -> Result<[f64; 2]> {
        let [first, second] = &self.admins;
        let clients = |metrics: Metrics| metrics.sum("trunkline_client_connections", &[]);
        Ok([clients(Metrics::of(first).await?), clients(Metrics::of(second).await?)])
    }

    /// The process of this name, as the script has told it.
    ///
    /// # Errors
    /// When it has told of none.
    pub fn process_of(&self, name: &str) -> Result<u32> {
        let lines = self.process.lines_after(&format!("{name}: pid "));
        let line = lines.first().with_context(|| format!("no {name}"))?;
        Ok(line.split(',').next().unwrap_or_default().parse()?)
    }

    /// Ends it as Ctrl-C does, and demands that nothing stays behind.
    ///
    /// # Errors
    /// When something does.
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
        // Its children must not outlive a failed test. Those that are gone already are no error.
        for process in processes_of_group(self.group).unwrap_or_default() {
            let script = format!("kill -s KILL {process}");
            drop(std::process::Command::new("sh").args(["-c", &script]).output());
        }
    }
}
