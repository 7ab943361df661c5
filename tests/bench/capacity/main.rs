#![forbid(unsafe_code)]
//! Capacity of a fleet on one machine: hundreds of thousands of idle clients, each of which receives every broadcast.
//!
//! ```text
//!                    ┌─ proxy 1  ◄── 15 000 clients ── holder 1,  from 127.0.1.1
//!  app server ═══════╪─ proxy 2  ◄── 15 000 clients ── holder 2,  from 127.0.1.2
//!                    └─ …
//! ```
//!
//! The limit of open files per process determines the number of proxies, each with a client process. Clients connect
//! with limited concurrency and ping every 15 s. When memory becomes scarce or the machine refuses another resource, no
//! more clients connect, and the run reports the exhausted resource: `--clients 1000000` fills a machine. Then numbered
//! broadcasts are sent, and each client must receive each once. Finally a table shows the memory of all processes.
//!
//! | module | contents |
//! |---|---|
//! | [`machine`] | memory of the machine |
//! | [`holder`] | process with the clients of one proxy |

mod holder;
mod machine;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use trunkline_bench::child::Speaker;
use trunkline_bench::product::{MeasuredApp, MeasuredProxy};
use trunkline_generator::memory::Memory;
use trunkline_generator::{connect, frame};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

use holder::{Came, HolderArguments};

const KIBIBYTE: f64 = 1_024.0;
const MEBIBYTE: f64 = 1_048_576.0;

/// Hundreds of thousands of idle clients, at as many proxies as open files require, and broadcasts to all of them.
#[derive(Debug, Parser)]
#[command(name = "capacity", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Clients of one proxy.
    #[command(hide = true)]
    Holder(HolderArguments),
}

/// Settings of a run.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Total number of client connections
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    /// Client connections per proxy: each is an open file
    #[arg(long, value_name = "N", default_value_t = 15_400, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    per_proxy: u32,
    /// Number of broadcasts to all clients
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    broadcasts: u64,
    /// Memory that has to stay free, in MiB: with less, no further clients connect
    #[arg(long, value_name = "MIB", default_value_t = 2_048)]
    keep_free: u64,
}

fn main() -> ExitCode {
    let Cli { role, settings } = Cli::parse();
    let done = match role {
        Some(Role::Holder(arguments)) => holder::run(&arguments),
        None => run(&settings),
    };
    command::finish("capacity", done)
}

struct Share {
    // Clients end first, because each would notice the end of its proxy.
    holder: Speaker,
    proxy: MeasuredProxy,
    clients: u32,
}

fn run(settings: &Settings) -> Result<()> {
    command::warn_of_debug_build("capacity");
    let free_before = machine::free_bytes()?;
    let app = MeasuredApp::start()?;
    let (mut shares, started) = (Vec::new(), Instant::now());
    let (mut present, mut ended_first) = (0, None);
    while present < settings.clients && ended_first.is_none() {
        let clients = settings.per_proxy.min(settings.clients - present);
        match Share::fill(&app, shares.len(), clients, settings.keep_free) {
            Ok(share) => shares.push(share),
            Err(error) if present > 0 => {
                ended_first = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        }
        present += clients;
        print_line(&format!(
            "{present:>7} of {} clients after {:.0} s, {:.1} GiB free",
            settings.clients,
            started.elapsed().as_secs_f64(),
            machine::free_bytes()? as f64 / MEBIBYTE / KIBIBYTE
        ));
    }
    print_line(&match ended_first {
        Some(error) => format!("what ended first, beyond {present} clients: {error:#}"),
        None => format!("nothing has ended before {present} clients were there: --clients is the next bound"),
    });
    let took = machine::taken_since(free_before)?;
    broadcast_all(settings, present, &mut shares)?;
    table(present, &app, &shares, took)
}

impl Share {
    /// Starts a proxy and connects its clients.
    fn fill(app: &MeasuredApp, number: usize, clients: u32, keep_free: u64) -> Result<Self> {
        let proxy = MeasuredProxy::start(app, 1)?;
        let (address, count, source) =
            (proxy.address().to_string(), clients.to_string(), format!("127.0.1.{}", number + 1));
        let keep_free = keep_free.to_string();
        let arguments =
            ["holder", "--proxy", &address, "--clients", &count, "--source", &source, "--keep-free", &keep_free];
        Ok(Self { holder: Speaker::start("clients", &arguments)?, proxy, clients })
    }
}

/// Sends numbered broadcasts sequentially, each through a different proxy.
fn broadcast_all(settings: &Settings, clients: u32, shares: &mut [Share]) -> Result<()> {
    let everybody = u64::from(clients);
    for number in 1..=settings.broadcasts {
        for share in &mut *shares {
            share.holder.ask(&number.to_string())?;
        }
        let place = usize::try_from(number)? % shares.len();
        let asked_at = shares.get(place).context("nobody is there")?.proxy.address();
        let (mut asking, _) = connect::to_hub(asked_at, "/bench", "")?;
        let started = Instant::now();
        asking.write_all(&frame::from_client(&holder::call(number)))?;
        let mut all = Came::default();
        for share in &mut *shares {
            all.add(serde_json::from_str(&share.holder.receive()?)?);
        }
        print_line(&format!(
            "broadcast {number}: {} of {everybody} clients got it, {} twice, {} something else; after {:.2} s",
            all.once,
            all.twice,
            all.other,
            started.elapsed().saturating_sub(holder::SETTLE).as_secs_f64()
        ));
        ensure!(all == Came { once: everybody, ..Came::default() }, "a broadcast did not reach each client once");
    }
    Ok(())
}

fn table(clients: u32, app: &MeasuredApp, shares: &[Share], took: u64) -> Result<()> {
    let row = |name: &str, clients: u32, memory: Memory| {
        let bytes = memory.anonymous_bytes as f64;
        format!(
            "{name:<12} {clients:>9} {:>12.1} {:>12.1} {:>14.2}",
            bytes / MEBIBYTE,
            memory.resident_bytes as f64 / MEBIBYTE,
            bytes / f64::from(clients) / KIBIBYTE
        )
    };
    print_line(&format!(
        "\n{:<12} {:>9} {:>12} {:>12} {:>14}",
        "process", "clients", "own MiB", "resident MiB", "own KiB/client"
    ));
    print_line(&row("app server", clients, Memory::of(app.pid())?));
    for (number, share) in shares.iter().enumerate() {
        print_line(&row(&format!("proxy {}", number + 1), share.clients, Memory::of(share.proxy.pid())?));
    }
    for (number, share) in shares.iter().enumerate() {
        print_line(&row(&format!("clients {}", number + 1), share.clients, Memory::of(share.holder.id())?));
    }
    print_line(&format!(
        "the machine has {:.2} GiB less free with all of them, the clients' own ends included: {:.2} KiB a client",
        took as f64 / MEBIBYTE / KIBIBYTE,
        took as f64 / f64::from(clients) / KIBIBYTE
    ));
    Ok(())
}
