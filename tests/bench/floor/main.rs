#![forbid(unsafe_code)]
//! Cost of a delivery: deliveries per CPU-second of the proxy, beside those of a bare epoll writer, the floor.
//!
//! ```text
//!   crowd ── "send number 7" ──► writer ── the frame, one write each ──► the crowd's N sockets
//!   crowd ── Broadcast("7…") ──► proxy ──► app server ──► proxy ── the same frame ──► the crowd's N sockets
//! ```
//!
//! **What is compared.** Both servers send the same bytes to as many sockets of the same receiver, over loopback.
//! The floor is one thread that reads a ready-made frame from one socket and writes it to all others; the proxy
//! does the whole work of a SignalR broadcast, its half of the call that asks for it included. A broadcast starts
//! only when all have got the one before, so no two can share a write: every delivery is one write of one frame in
//! both, and a server that is slower is not helped by coalescing. The receiver compares each frame byte by byte
//! with the one that is due: what is lost, comes twice or out of turn ends the run.
//!
//! **What is counted.** CPU time of the server's threads, as the scheduler counts it in nanoseconds, read while the
//! server sleeps. On loopback it contains the receiver's half of TCP, which runs in the sender: the same amount in
//! both, so the excess over the floor in µs says more than the ratio. What `ksoftirqd` does is not in it; it is shown
//! beside it where it can be seen, for the whole machine.
//!
//! **Stalled clients.** With `--stalled N` there is no floor: a proxy with so many clients that have stopped reading is
//! compared with a proxy without them, and beside the CPU time the latency of the others counts, and the memory. What
//! may wait for a client is 256 KiB, so those who stopped are closed after some windows. With `--idle N` it is the same
//! with clients that do nothing but keep alive.
//!
//! **What it is worth.** Speed drifts within minutes, so only runs side by side compare: each round has a window of
//! the floor, one of the proxy and one of the floor again, begins with another of them each time, and gives one
//! ratio. How far the floor differs from itself is the noise that the proxy's ratio has too.
//!
//! | module | what it holds |
//! |---|---|
//! | [`work`] | what is measured |
//! | [`broadcast`] | the bytes of a broadcast |
//! | [`writer`], [`answerer`] | the floor of broadcasts, and that of calls and connects |
//! | [`crowd`] | the generator, a process too: it connects, gives work, counts, reads the CPU time |
//! | [`server`] | what a crowd is at: the floor, or proxy and app server |
//! | [`stalled`] | clients that have stopped reading |
//! | [`fleet`] | the two crowds of a run |
//! | [`rounds`] | which window comes when |
//! | [`report`] | ratios, the table, the JSON file |
//!
//! Clients, frames and CPU time are [`trunkline_generator`], processes and medians [`trunkline_tests::bench`].

mod answerer;
mod broadcast;
mod crowd;
mod fleet;
mod report;
mod rounds;
mod server;
mod stalled;
mod work;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use broadcast::{Speech, To};
use crowd::{BystanderArguments, CrowdArguments};
use report::Report;
use stalled::StalledArguments;
use trunkline_tests::bench::child::say;
use trunkline_tests::bench::command;
use work::Work;
use writer::WriterArguments;

/// Deliveries per CPU-second of the proxy, beside those of a bare epoll writer doing the same writes.
#[derive(Debug, Parser)]
#[command(name = "floor", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    settings: Settings,
}

/// The other processes of a run are this program, too.
#[derive(Debug, Subcommand)]
enum Role {
    /// The floor, as a process.
    #[command(hide = true)]
    Writer(WriterArguments),
    /// The receiver of one server.
    #[command(hide = true)]
    Crowd(CrowdArguments),
    /// Clients that have stopped reading.
    #[command(hide = true)]
    Stalled(StalledArguments),
    /// Clients that are idle.
    #[command(hide = true)]
    Bystanders(BystanderArguments),
}

/// Settings of a run.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
struct Settings {
    /// Work of the clients
    #[arg(long, default_value_t = Work::Broadcast, value_enum)]
    work: Work,
    /// Client connections; of connects, those that are under way together
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    clients: u32,
    /// Length of each window
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds: each gives one pair of floor and proxy, and one of floor and floor
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Bytes of the text that travels, without what frames it
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=16_384))]
    payload: u32,
    /// Broadcasts that are asked for at once; the floor has them in one write
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    burst: u64,
    /// Audience of a message
    #[arg(long, default_value_t = To::Everyone, value_enum)]
    to: To,
    /// Hub protocols of the clients; the floor sends JSON to all
    #[arg(long, default_value_t = Speech::Json, value_enum)]
    speech: Speech,
    /// Links between each proxy and the app server
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=256))]
    links: u16,
    /// Bursts per second at most; without it, each starts when the one before has arrived
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Proxies, at which the clients take turns; calls and broadcasts only
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    proxies: u16,
    /// Threads of each proxy that serve clients; the floor is always one thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Clients that have stopped reading, beside the others: a proxy with them is compared with a proxy without them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    stalled: u32,
    /// Clients that are idle, beside the others: a proxy with them is compared with a proxy without them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=18_000))]
    idle: u32,
    /// File for the figures as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Cli { role, settings } = Cli::parse();
    let done = match role {
        Some(Role::Writer(arguments)) if arguments.work == Work::Broadcast => writer::run(&arguments),
        Some(Role::Writer(arguments)) => answerer::run(&arguments),
        Some(Role::Crowd(arguments)) => crowd::run(&arguments),
        Some(Role::Stalled(arguments)) => stalled::run(&arguments),
        Some(Role::Bystanders(arguments)) => crowd::stand_by(&arguments),
        None => compare(settings),
    };
    command::finish("floor", done)
}

impl Settings {
    /// Whether a proxy is compared with a proxy, and not with the floor.
    fn has_bystanders(&self) -> bool {
        self.stalled > 0 || self.idle > 0
    }
}

fn compare(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("floor");
    let can_spread = matches!(settings.work, Work::Broadcast | Work::Echo);
    ensure!(settings.proxies == 1 || can_spread, "--proxies is for broadcasts and echoes only");
    let mut fleet = fleet::Fleet::start(&settings)?;
    say(&report::heading(&settings));
    let windows = rounds::measure(&mut fleet, &settings, |window| say(&report::row(&settings, window)))?;
    let report = Report::new(settings, windows)?;
    say(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
