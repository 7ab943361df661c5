//! The demo, run as from a terminal: in a process group of its own, with addresses of its own.

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::harness::process::{Process, Signal};
use crate::harness::scenario::{Stage, profile_folder};
use crate::harness::sockets::free_address;

/// The last line of what the demo prints when everything runs.
const INVITATION_END: &str = "Ctrl-C ends it all.";

/// Addresses of a demo.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Address of the app server.
    pub app: String,
    /// The proxies, for clients.
    pub proxies: [String; 2],
    /// The proxies' admin ports.
    pub admins: [String; 2],
}

impl Addresses {
    /// Free ones.
    ///
    /// # Errors
    /// When no port is free.
    pub fn free() -> Result<Self> {
        Ok(Self {
            app: free_address()?,
            proxies: [free_address()?, free_address()?],
            admins: [free_address()?, free_address()?],
        })
    }

    fn flags(&self) -> Vec<&str> {
        let [first, second] = &self.proxies;
        let [first_admin, second_admin] = &self.admins;
        let app = ["--app-listen", &self.app];
        let proxies = ["--proxy", first, "--admin", first_admin, "--proxy", second, "--admin", second_admin];
        app.into_iter().chain(proxies).collect()
    }
}

/// Demo that runs until this value is dropped.
#[derive(Debug)]
pub struct Demo {
    /// Its own process, which leads the group.
    pub process: Process,
    addresses: Addresses,
    group: u32,
}

impl Demo {
    /// Starts it with what was built beside the tests, without waiting.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn start(stage: &Stage, addresses: Addresses) -> Result<Self> {
        Self::start_with(stage, addresses, &[])
    }

    /// Starts it with more arguments, without waiting.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn start_with(stage: &Stage, addresses: Addresses, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(profile_folder()?.join("trunkline-demo"));
        command.arg("--no-build").args(addresses.flags()).args(arguments);
        command.env("XDG_STATE_HOME", stage.folder().join("state")).process_group(0);
        let process = Process::start(stage, "demo", command)?;
        let group = process.id()?;
        Ok(Self { process, addresses, group })
    }

    /// Waits until it has said what to open.
    ///
    /// # Errors
    /// When it ends instead.
    pub async fn invites(&mut self) -> Result<()> {
        self.process.wait_for_line(INVITATION_END).await?;
        Ok(())
    }

    /// Address that it listens on.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its process and all children, as far as they run.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn processes(&self) -> Result<Vec<u32>> {
        processes_of_group(self.group)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its children must not outlive a failed test. Those that are gone already are no error.
        for process in self.processes().unwrap_or_default() {
            let script = format!("kill -s KILL {process}");
            drop(std::process::Command::new("sh").args(["-c", &script]).output());
        }
    }
}

/// All processes of a group that are not dead yet, from the system's process table.
pub(crate) fn processes_of_group(group: u32) -> Result<Vec<u32>> {
    let group = group.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("reading the process table")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile has no entry any more.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // After the name, which may hold anything: state, parent, group.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let is_dead = fields.next() == Some("Z");
        if !is_dead && fields.nth(1) == Some(&group) {
            found.push(process);
        }
    }
    Ok(found)
}

/// Signals a whole group, as Ctrl-C in a terminal does.
///
/// # Errors
/// When the demo is gone.
pub async fn press_ctrl_c(demo: &Demo) -> Result<()> {
    demo.process.signal_group(Signal::Interrupt).await
}
