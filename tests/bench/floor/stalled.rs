//! Clients that have stopped reading: a process that connects them, with small receive buffers, and is then stopped.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpSocket;
use trunkline_tests::bench::connect;
use trunkline_tests::bench::process::{READY, Speaker, say};

/// The system doubles it, for what it keeps itself.
const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024;

/// What they need to know.
#[derive(Debug, clap::Args)]
pub(crate) struct StalledArguments {
    /// The proxy
    #[arg(long)]
    address: SocketAddr,
    /// How many
    #[arg(long)]
    clients: u32,
}

/// Clients that have stopped reading; they are gone with this value.
#[derive(Debug)]
pub(crate) struct Stalled(Speaker);

impl Stalled {
    /// Connects so many to a proxy, and stops them.
    pub(crate) fn start(address: SocketAddr, clients: u32) -> Result<Self> {
        let (address, clients) = (address.to_string(), clients.to_string());
        let arguments = ["stalled", "--address", &address, "--clients", &clients];
        let stalled = Self(Speaker::start("stalled clients", &arguments)?);
        ensure!(stalled.signal("-STOP")?, "the stalled clients can't be stopped");
        Ok(stalled)
    }

    fn signal(&self, signal: &str) -> Result<bool> {
        let kill = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        Ok(kill.context("running kill")?.success())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Stopped, it would not notice that it is to end.
        drop(self.signal("-CONT"));
    }
}

/// Connects, and holds the connections until it is killed or its input ends.
pub(crate) fn run(arguments: &StalledArguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        let socket = runtime.block_on(open(arguments.address))?;
        clients.push(connect::over(socket, arguments.address, "/bench", "")?);
    }
    say(READY);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

async fn open(address: SocketAddr) -> Result<std::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let socket = socket.connect(address).await?.into_std()?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}
