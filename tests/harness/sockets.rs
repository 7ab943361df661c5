//! Counts TCP connections in the system's table, and finds free ports.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, anyhow, bail};

/// State `ESTABLISHED` in the system's table.
const ESTABLISHED: &str = "01";

/// Ports are allocated below the range of outgoing connections, so that they stay free until their process has started
/// or restarted.
const FIRST_PORT: u16 = 10_000;

/// Ports per block: a test run needs about 600, and a concurrent run uses another block.
const BLOCK_PORTS: u16 = 1_000;
const BLOCKS: u16 = 20;

/// The only port in the blocks that browsers and `fetch` refuse (a "bad port" of the Fetch standard).
const BAD_PORT: u16 = 10_080;

/// Port block of this test run.
struct Block {
    first_port: u16,
    next: AtomicU16,
    /// Listener on the block's first port, which reserves the block.
    _claim: TcpListener,
}

impl Block {
    fn claim() -> Result<Self> {
        let mut first_ports = (0..BLOCKS).map(|number| FIRST_PORT + number * BLOCK_PORTS);
        let claim = |first_port| {
            let _claim = TcpListener::bind(("127.0.0.1", first_port)).ok()?;
            Some(Self { first_port, next: AtomicU16::new(0), _claim })
        };
        first_ports.find_map(claim).context("all ports for tests are taken")
    }

    fn next_port(&self) -> u16 {
        self.first_port + 1 + self.next.fetch_add(1, Ordering::Relaxed) % (BLOCK_PORTS - 1)
    }
}

static BLOCK: LazyLock<Result<Block>> = LazyLock::new(Block::claim);

/// Returns an unused loopback address, unique per call.
pub fn free_address() -> Result<String> {
    let block = BLOCK.as_ref().map_err(|error| anyhow!("{error}"))?;
    for _ in 0..BLOCK_PORTS {
        let port = block.next_port();
        if port != BAD_PORT && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(format!("127.0.0.1:{port}"));
        }
    }
    bail!("no port is free")
}

/// Number of established connections at this loopback server address.
pub fn established_at(address: &str) -> Result<usize> {
    let port: u16 = address.rsplit(':').next().context("an address ends with a port")?.parse()?;
    let suffix = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").context("reading the table of TCP connections")?;
    let is_one = |row: &&str| {
        let mut columns = row.split_whitespace().skip(1);
        let local = columns.next().is_some_and(|local| local.ends_with(&suffix));
        local && columns.nth(1) == Some(ESTABLISHED)
    };
    Ok(table.lines().skip(1).filter(is_one).count())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn each_established_connection_of_a_server_is_counted_once() {
        let listener = TcpListener::bind(free_address().unwrap()).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(established_at(&address).unwrap(), 0);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(&address).unwrap()).collect();
        let accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
        assert_eq!(established_at(&address).unwrap(), 3);
        drop((clients, accepted));
    }
}
