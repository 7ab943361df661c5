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

/// Connects so many to a proxy and stops them. They are gone with the value that is returned.
pub(crate) fn start(address: SocketAddr, clients: u32) -> Result<Speaker> {
    let (address, clients) = (address.to_string(), clients.to_string());
    let process = Speaker::start("stalled clients", &["stalled", "--address", &address, "--clients", &clients])?;
    let stopped = Command::new("kill").args(["-STOP", &process.id().to_string()]).status().context("running kill")?;
    ensure!(stopped.success(), "the stalled clients can't be stopped");
    Ok(process)
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
