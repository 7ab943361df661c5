//! The product under test: a proxy before the app server `bench`, each a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::process::Process;
use crate::fleet::{ACCESS_KEY, POOL_SIZE};
use crate::metrics::Metrics;
use crate::scenario::profile_folder;
use crate::sockets::free_address;

/// What builds the programs that are measured.
const BUILD: &str = "cargo build --release -p trunkline-proxy --bin trunkline -p trunkline --example bench";

/// A proxy and its app server. They end with this value, the proxy first.
#[derive(Debug)]
pub struct Product {
    address: SocketAddr,
    app_address: SocketAddr,
    proxy: Process,
    app: Process,
}

impl Product {
    /// Starts both, and waits for all links between them.
    ///
    /// # Errors
    /// When one is not built or does not start.
    pub fn start(shards: u16) -> Result<Self> {
        let (trunkline, bench) = programs()?;
        let (address, admin, app_address) = (address()?, address()?, address()?);
        let app = Process::start("app server", command(&bench).args(["--listen", &app_address.to_string()]))?;
        let mut serve = command(&trunkline);
        serve.args(["serve", "--listen", &address.to_string(), "--admin", &admin.to_string()]);
        serve.args(["--upstream", &format!("http://{app_address}"), "--shards", &shards.to_string()]);
        let mut proxy = Process::start("proxy", &mut serve)?;
        proxy.wait_until(|| {
            let links = metrics(admin).map(|metrics| metrics.sum("trunkline_links", &[("state", "open")]));
            links.is_ok_and(|links| links >= POOL_SIZE as f64)
        })?;
        Ok(Self { address, app_address, proxy, app })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The proxy's process id.
    #[must_use]
    pub fn proxy_pid(&self) -> u32 {
        self.proxy.id()
    }

    /// The app server's process id.
    #[must_use]
    pub fn app_pid(&self) -> u32 {
        self.app.id()
    }

    /// How many client connections the app server knows of.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn app_connections(&self) -> Result<f64> {
        Ok(metrics(self.app_address)?.sum("trunkline_app_connections", &[]))
    }
}

/// An address at which nobody listens.
///
/// # Errors
/// When no port is free.
pub fn address() -> Result<SocketAddr> {
    Ok(free_address()?.parse()?)
}

/// The proxy and the app server, which lie where this program does.
fn programs() -> Result<(PathBuf, PathBuf)> {
    let folder = profile_folder()?;
    Ok((program(&folder, "trunkline")?, program(&folder.join("examples"), "bench")?))
}

fn program(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is missing; this builds it: {BUILD}", path.display());
    Ok(path)
}

/// A program of the product: no settings of whoever runs this reach it, and only errors are logged (warnings would
/// be about the end of the run, where each process is missed by another).
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRUNKLINE_") {
            command.env_remove(name);
        }
    }
    command.env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY).env("TRUNKLINE_LOG", "error").env("RUST_LOG", "error");
    command
}

/// One reading of the counters of the process that listens there.
fn metrics(address: SocketAddr) -> Result<Metrics> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Metrics::of(&address.to_string()))
}
