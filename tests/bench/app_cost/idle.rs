//! Idle clients: a process that starts proxy and app server, connects, and reads the memory of both.
//!
//! ```text
//!  "\n" ──► memory ─► N connect ─► memory ─► N more connect ─► memory ──► {"before":…}
//! ```

use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use trunkline_bench::child::READY;
use trunkline_bench::product::Product;
use trunkline_generator::connect;
use trunkline_generator::memory::Memory;
use trunkline_tests::harness::command::print_line;

use crate::browser::Dress;

/// Wait until the last handshake is complete at all ends.
const SETTLE: Duration = Duration::from_millis(500);

/// Sockets of the proxy and this process in addition to the clients'.
const OTHER_FILES: u64 = 100;

/// Arguments of the idle clients.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArguments {
    /// Headers and tokens of their connect requests
    #[arg(long)]
    dress: Dress,
    /// Clients in each wave
    #[arg(long)]
    clients: u32,
    /// Threads of the proxy that serve clients
    #[arg(long)]
    shards: u16,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct MemoryReading {
    pub(crate) app: Memory,
    pub(crate) proxy: Memory,
}

/// Memory over two waves of clients.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Waves {
    pub(crate) before: MemoryReading,
    pub(crate) first: MemoryReading,
    pub(crate) second: MemoryReading,
}

/// Starts proxy and app server, then measures on request.
///
/// Ends with its input, along with the other processes, so that none remains however the benchmark ends.
pub(crate) fn run(arguments: &IdleArguments) -> Result<()> {
    let needed = 2 * u64::from(arguments.clients) + OTHER_FILES;
    if let Some(limit) = open_files_limit() {
        ensure!(limit >= needed, "{limit} files may be open, {needed} are needed: say `ulimit -n {needed}` first");
    }
    let product = Product::start(arguments.shards)?;
    print_line(READY);
    for _ in io::stdin().lines() {
        print_line(&serde_json::to_string(&measure(&product, arguments)?)?);
    }
    Ok(())
}

fn measure(product: &Product, arguments: &IdleArguments) -> Result<Waves> {
    let mut clients = Vec::new();
    let before = reading(product, &clients)?;
    let first = wave(product, arguments, &mut clients)?;
    let second = wave(product, arguments, &mut clients)?;
    Ok(Waves { before, first, second })
}

fn wave(product: &Product, arguments: &IdleArguments, clients: &mut Vec<TcpStream>) -> Result<MemoryReading> {
    for _ in 0..arguments.clients {
        let number = u32::try_from(clients.len())?;
        let (target, headers) = arguments.dress.request(number, product.address())?;
        let connected = connect::to_hub(product.address(), &target, &headers);
        let (socket, _) = connected.with_context(|| format!("client {number}"))?;
        clients.push(socket);
    }
    reading(product, clients)
}

fn reading(product: &Product, clients: &[TcpStream]) -> Result<MemoryReading> {
    sleep(SETTLE);
    let (here, due) = (product.app_connections()?, clients.len() as f64);
    ensure!(here == due, "the app server has {here} connections where {due} are due");
    Ok(MemoryReading { app: Memory::of(product.app_pid())?, proxy: Memory::of(product.proxy_pid())? })
}

fn open_files_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
