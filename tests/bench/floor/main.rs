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
//! **Transports.** With `--transport` there is no floor either: receivers by server-sent events or long polls at one
//! proxy are compared with receivers by WebSockets at another one.
//!
//! **System calls.** With `--singly` a proxy that sends to each client by a system call of its own is compared with one
//! that sends to many by one, as nodes do where the system lets them.
//!
//! **Storms.** Clients of `--work storm` stay, and each window has a server that has had no such crowd before. With
//! `--pinned` the floor or the proxy has a core of its own, and the generator and the app server share another one.
//!
//! **What it is worth.** Speed drifts within minutes, so only runs side by side compare: each round has a window of
//! the floor, one of the proxy and one of the floor again, begins with another of them each time, and gives one
//! ratio. How far the floor differs from itself is the noise that the proxy's ratio has too.
//!
//! | module | what it holds |
//! |---|---|
//! | [`broadcast`] | the bytes of a broadcast |
//! | [`transport`] | what brings a broadcast to clients |
//! | [`work`] | what is measured |
//! | [`settings`] | the command line |
//! | [`writer`] | the floor of broadcasts |
//! | [`answerer`] | the floor of calls and connects |
//! | [`arguments`] | the command line of a crowd |
//! | [`server`] | what a crowd is at: the floor, or proxy and app server |
//! | [`peak`] | the most memory that a server has |
//! | [`stalled`] | clients that have stopped reading |
//! | [`crowd`] | the generator, a process too: it connects, gives work, counts, reads the CPU time |
//! | [`part`] | the parts of a round |
//! | [`fleet`] | the two crowds of a run |
//! | [`rounds`] | which window comes when |
//! | [`report`] | ratios, the table, the JSON file |
//!
//! Clients, frames and CPU time are [`trunkline_generator`], processes and medians [`trunkline_tests::bench`].

mod answerer;
mod arguments;
mod broadcast;
mod crowd;
mod fleet;
mod part;
mod peak;
mod report;
mod rounds;
mod server;
mod settings;
mod stalled;
mod transport;
mod work;
mod writer;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use arguments::CrowdArguments;
use broadcast::{Speech, To};
use crowd::BystanderArguments;
use report::Report;
use settings::Settings;
use stalled::StalledArguments;
use transport::Transport;
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

fn compare(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("floor");
    let can_spread = matches!(settings.work, Work::Broadcast | Work::Echo);
    ensure!(settings.proxies == 1 || can_spread, "--proxies is for broadcasts and echoes only");
    let is_everyone = settings.work == Work::Broadcast && settings.to == To::Everyone && settings.proxies == 1;
    let is_json = settings.speech == Speech::Json;
    let is_plain = settings.transport == Transport::WebSockets;
    ensure!(
        is_plain || (is_everyone && is_json),
        "--transport is for broadcasts to everyone in json at one proxy only"
    );
    let mut fleet = fleet::Fleet::start(&settings)?;
    say(&report::heading(&settings));
    let windows = rounds::measure(&mut fleet, &settings, |window| say(&report::row(&settings, window)))?;
    let report = Report::new(settings, windows)?;
    say(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
