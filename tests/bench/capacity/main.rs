#![forbid(unsafe_code)]
//! Capacity of a fleet on one machine: idle clients by the hundred thousand, each of which gets every broadcast.
//!
//! ```text
//!                    ┌─ proxy 1  ◄── 15 000 clients ── holder 1,  from 127.0.1.1
//!  app server ═══════╪─ proxy 2  ◄── 15 000 clients ── holder 2,  from 127.0.1.2
//!                    └─ …
//! ```
//!
//! A process may have so many open files, so there are as many proxies as that takes, and for each a process of
//! clients. They connect some at a time, and say every 15 s that they are there. Where memory gets scarce, or the
//! machine refuses something else, no more come, and the run says what has ended first: `--clients 1000000` fills a
//! machine. Then numbered broadcasts: each client has to get each of them once. Last a table of what all processes have
//! in memory.
//!
//! | module | what it holds |
//! |---|---|
//! | [`machine`] | what the machine has in memory |
//! | [`holder`] | the clients of one proxy, a process |

mod holder;
mod machine;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use trunkline_generator::memory::Memory;
use trunkline_generator::{connect, frame};
use trunkline_tests::bench::child::{Speaker, say};
use trunkline_tests::bench::command;
use trunkline_tests::bench::product::{MeasuredApp, MeasuredProxy};

use holder::{Came, HolderArguments};

const KIBIBYTE: f64 = 1_024.0;
const MEBIBYTE: f64 = 1_048_576.0;

/// Idle clients by the hundred thousand, at as many proxies as open files allow, and broadcasts to all of them.
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
    /// The clients of one proxy.
    #[command(hide = true)]
    Holder(HolderArguments),
}

/// Settings of a run.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Client connections in all
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    /// Client connections at one proxy: each is an open file of it
    #[arg(long, value_name = "N", default_value_t = 15_400, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    per_proxy: u32,
    /// Broadcasts to all of them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    broadcasts: u64,
    /// Memory that has to stay free, in MiB: with less, no more clients connect
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

/// A proxy, and its clients.
struct Share {
    // The clients go first, or each would notice that its proxy has gone.
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
            // Those that are there show what the machine carries.
            Err(error) if present > 0 => {
                ended_first = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        }
        present += clients;
        say(&format!(
            "{present:>7} of {} clients after {:.0} s, {:.1} GiB free",
            settings.clients,
            started.elapsed().as_secs_f64(),
            machine::free_bytes()? as f64 / MEBIBYTE / KIBIBYTE
        ));
    }
    say(&match ended_first {
        Some(error) => format!("what ended first, beyond {present} clients: {error:#}"),
        None => format!("nothing has ended before {present} clients were there: --clients is the next bound"),
    });
    let took = machine::taken_since(free_before)?;
    broadcast_all(settings, present, &mut shares)?;
    table(present, &app, &shares, took)
}

impl Share {
    /// Starts a proxy, and connects its clients.
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

/// Numbered broadcasts, one after the other, each asked for at another proxy.
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
            all.add(serde_json::from_str(&share.holder.hear()?)?);
        }
        say(&format!(
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

/// Table of each process's memory, and of the machine's.
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
    say(&format!(
        "\n{:<12} {:>9} {:>12} {:>12} {:>14}",
        "process", "clients", "own MiB", "resident MiB", "own KiB/client"
    ));
    say(&row("app server", clients, Memory::of(app.pid())?));
    for (number, share) in shares.iter().enumerate() {
        say(&row(&format!("proxy {}", number + 1), share.clients, Memory::of(share.proxy.pid())?));
    }
    for (number, share) in shares.iter().enumerate() {
        say(&row(&format!("clients {}", number + 1), share.clients, Memory::of(share.holder.id())?));
    }
    say(&format!(
        "the machine has {:.2} GiB less free with all of them, the clients' own ends included: {:.2} KiB a client",
        took as f64 / MEBIBYTE / KIBIBYTE,
        took as f64 / f64::from(clients) / KIBIBYTE
    ));
    Ok(())
}
