//! What a crowd is at: the floor, or a proxy before an app server, each a process of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use trunkline_tests::fleet::ACCESS_KEY;
use trunkline_tests::scenario::profile_folder;
use trunkline_tests::sockets::free_address;

use crate::process::{PATIENCE, Process, Speaker};

/// What builds the programs that are measured.
const BUILD: &str = "cargo build --release -p trunkline-proxy --bin trunkline -p trunkline --example bench";

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    processes: Processes,
}

#[derive(Debug)]
enum Processes {
    Floor(Speaker),
    /// The proxy ends before its app server.
    Proxy(Process, #[expect(dead_code, reason = "it is only held")] Process),
}

impl Server {
    /// Starts the floor. It ends when its first client does.
    pub(crate) fn floor() -> Result<Self> {
        let address = address()?;
        let floor = Speaker::start("floor", &["writer", "--listen", &address.to_string()])?;
        Ok(Self { address, processes: Processes::Floor(floor) })
    }

    /// Starts a proxy and its app server, and waits for the links between them.
    pub(crate) fn proxy(shards: u16) -> Result<Self> {
        let (trunkline, bench) = programs()?;
        let (address, admin, upstream) = (address()?, address()?, address()?);
        let app = Process::start("app server", product(&bench).args(["--listen", &upstream.to_string()]))?;
        let mut command = product(&trunkline);
        command.args(["serve", "--listen", &address.to_string(), "--admin", &admin.to_string()]);
        command.args(["--upstream", &format!("http://{upstream}"), "--shards", &shards.to_string()]);
        let mut proxy = Process::start("proxy", &mut command)?;
        proxy.wait_until(|| is_ready(admin).unwrap_or(false))?;
        Ok(Self { address, processes: Processes::Proxy(proxy, app) })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that is measured.
    pub(crate) fn pid(&self) -> u32 {
        match &self.processes {
            Processes::Floor(floor) => floor.id(),
            Processes::Proxy(proxy, _) => proxy.id(),
        }
    }
}

fn address() -> Result<SocketAddr> {
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
fn product(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRUNKLINE_") {
            command.env_remove(name);
        }
    }
    command.env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY).env("TRUNKLINE_LOG", "error").env("RUST_LOG", "error");
    command
}

/// Whether the proxy has its links to the app server.
fn is_ready(admin: SocketAddr) -> Result<bool> {
    let mut socket = TcpStream::connect_timeout(&admin, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}
