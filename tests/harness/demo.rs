//! The demo, run as from a terminal, with its own process group and addresses.

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::harness::process::{Process, Signal};
use crate::harness::scenario::{Fixture, profile_folder};
use crate::harness::sockets::free_address;

/// Last line printed by the demo when everything is running.
const INVITATION_END: &str = "Ctrl-C ends it all.";

/// Addresses of a demo.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Address of the app server.
    pub app: String,
    /// Client addresses of the proxies.
    pub proxies: [String; 2],
    /// Admin addresses of the proxies.
    pub admins: [String; 2],
}

impl Addresses {
    /// Allocates free addresses.
    ///
    /// # Errors
    /// If no port is free.
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

/// Running demo, stopped on drop.
#[derive(Debug)]
pub struct Demo {
    /// The demo process, leader of the group.
    pub process: Process,
    addresses: Addresses,
    group: u32,
}

impl Demo {
    /// Starts the demo built with the tests, without waiting.
    pub fn start(fixture: &Fixture, addresses: Addresses) -> Result<Self> {
        Self::start_with(fixture, addresses, &[])
    }

    /// Starts the demo with additional arguments, without waiting.
    pub fn start_with(fixture: &Fixture, addresses: Addresses, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(profile_folder()?.join("trunkline-demo"));
        command.arg("--no-build").args(addresses.flags()).args(arguments);
        command.env("XDG_STATE_HOME", fixture.folder().join("state")).process_group(0);
        let process = Process::start(fixture, "demo", command)?;
        let group = process.id()?;
        Ok(Self { process, addresses, group })
    }

    /// Waits until the demo has printed what to open.
    pub async fn invites(&mut self) -> Result<()> {
        self.process.wait_for_line(INVITATION_END).await?;
        Ok(())
    }

    /// Addresses of the demo.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its running process and all children.
    pub fn processes(&self) -> Result<Vec<u32>> {
        processes_of_group(self.group)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Children must not outlive a failed test. Children that already ended are not an error.
        for process in self.processes().unwrap_or_default() {
            let script = format!("kill -s KILL {process}");
            drop(std::process::Command::new("sh").args(["-c", &script]).output());
        }
    }
}

/// Running processes of a group, from the system's process table.
pub(crate) fn processes_of_group(group: u32) -> Result<Vec<u32>> {
    let group = group.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("reading the process table")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile has no entry.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // After the name, which may contain anything: state, parent, group.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let is_dead = fields.next() == Some("Z");
        if !is_dead && fields.nth(1) == Some(&group) {
            found.push(process);
        }
    }
    Ok(found)
}

/// Sends a signal to the whole group, like Ctrl-C in a terminal.
pub async fn press_ctrl_c(demo: &Demo) -> Result<()> {
    demo.process.signal_group(Signal::Interrupt).await
}
