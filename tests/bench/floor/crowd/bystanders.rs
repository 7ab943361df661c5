//! Additional idle clients: a separate process with uncounted CPU time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use trunkline_bench::child::{READY, Speaker};
use trunkline_generator::workload::Workload;
use trunkline_tests::harness::command::print_line;

use super::hub_crowds::idlers;
use crate::arguments::At;

/// Interval of checks for its end.
const TURN: Duration = Duration::from_secs(1);

/// Arguments of the clients.
#[derive(Debug, clap::Args)]
pub(crate) struct BystanderArguments {
    /// Address of the proxy
    #[arg(long)]
    address: SocketAddr,
    /// Number of clients to connect
    #[arg(long)]
    clients: usize,
}

/// Idle clients, disconnected on drop.
#[derive(Debug)]
pub(super) struct Bystanders(#[expect(dead_code, reason = "held, so that they stay")] Speaker);

impl Bystanders {
    /// Connects idle clients to a proxy.
    pub(super) fn start(address: SocketAddr, clients: u32) -> Result<Self> {
        let (address, clients) = (address.to_string(), clients.to_string());
        Ok(Self(Speaker::start("idle clients", &["bystanders", "--address", &address, "--clients", &clients])?))
    }
}

/// Connects, and keeps connections alive until its input ends.
pub(crate) fn stand_by(arguments: &BystanderArguments) -> Result<()> {
    let mut idlers = idlers(At::Proxy, arguments.address, arguments.clients)?;
    print_line(READY);
    let is_over = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            // Ends with any error or end of input.
            drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            is_over.store(true, Ordering::Release);
        }
    });
    while !is_over.load(Ordering::Acquire) {
        idlers.run_for(TURN)?;
    }
    Ok(())
}
