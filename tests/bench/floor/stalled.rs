//! Clients that have stopped reading: a process that connects them, with small receive buffers, and is then frozen.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use trunkline_bench::child::{READY, Speaker};
use trunkline_generator::connect;
use trunkline_generator::frame_protocol::Hub;
use trunkline_tests::harness::command::print_line;

/// The system doubles this for its own overhead.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024;

/// Arguments of the clients.
#[derive(Debug, clap::Args)]
pub(crate) struct StalledArguments {
    /// Address of the proxy
    #[arg(long)]
    address: SocketAddr,
    /// Number of clients to connect
    #[arg(long)]
    clients: u32,
}

/// Stalled clients, disconnected on drop.
#[derive(Debug)]
pub(crate) struct Stalled(Speaker);

impl Stalled {
    /// Connects clients to a proxy, and freezes them.
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
        // A frozen process would not detect the closed input.
        drop(self.signal("-CONT"));
    }
}

/// Connects, and holds the connections until it is killed or its input ends.
pub(crate) fn run(arguments: &StalledArguments) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        let socket = open(arguments.address)?;
        clients.push(connect::over(socket, arguments.address, "/bench", "", Hub::Json)?);
    }
    print_line(READY);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn open(address: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}
