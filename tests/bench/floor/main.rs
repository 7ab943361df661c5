#![forbid(unsafe_code)]
//! Cost of a delivery: deliveries per CPU second of the proxy, compared with a bare epoll writer, the floor.
//!
//! ```text
//!   crowd ── "send number 7" ──► writer ── the frame, one write each ──► the crowd's N sockets
//!   crowd ── Broadcast("7…") ──► proxy ──► app server ──► proxy ── the same frame ──► the crowd's N sockets
//! ```
//!
//! **Comparison.** Both servers send equal bytes to equally many sockets of one receiver, over loopback. The floor is
//! one thread that reads a prepared frame from one socket and writes it to all others; the proxy does the complete work
//! of a SignalR broadcast, including its half of the requesting call. A broadcast starts after all clients have
//! received the previous one, so no two can share a write: every delivery is one write of one frame in both, and a
//! slower server gains nothing from coalescing. The receiver compares each frame byte by byte; a lost, duplicated or
//! reordered frame ends the run.
//!
//! **Measurements.** CPU time of the server's threads, measured by the scheduler in nanoseconds and read while the
//! server sleeps. On loopback it includes the receiver's half of TCP, which runs in the sender, equally in both, so the
//! excess over the floor in µs is more meaningful than the ratio. The CPU time of `ksoftirqd` is not included; if
//! visible, it is shown separately for the whole machine.
//!
//! **Stalled clients.** `--stalled N` compares a proxy that has N additional clients that don't read with a proxy
//! without them, instead of the floor. Besides CPU time it measures the latency of the other clients, and memory. Each
//! client may have 256 KiB queued, so stalled clients are closed after some windows. `--idle N` does this with clients
//! that only keep their connections alive.
//!
//! **Transports.** `--transport` compares receivers with server-sent events or long polls at one proxy with WebSocket
//! receivers at another.
//!
//! **System calls.** `--singly` compares a proxy that sends to each client with a separate system call with a proxy
//! that batches sends, as nodes do where the system allows it.
//!
//! **Storms.** Clients of `--work storm` stay connected, and each window has a server without an earlier crowd. With
//! `--pinned` the floor or the proxy has its own core, and the generator and the app server share another.
//!
//! **Validity.** Speed drifts within minutes, so only adjacent runs are comparable: each round has windows of the
//! floor, the proxy and the floor again, in rotating order, and yields one ratio. The difference between both floor
//! windows is the noise of the ratio.
//!
//! | module | contents |
//! |---|---|
//! | [`broadcast`] | encoded broadcasts |
//! | [`transport`] | transports of broadcasts |
//! | [`work`] | measured work |
//! | [`settings`] | the command line |
//! | [`writer`] | the floor of broadcasts |
//! | [`answerer`] | the floor of calls and connects |
//! | [`arguments`] | the command line of a crowd |
//! | [`server`] | servers of a crowd: the floor, or proxy and app server |
//! | [`stalled`] | clients that have stopped reading |
//! | [`crowd`] | generator process: connects, applies load, counts, reads the CPU time |
//! | [`part`] | the parts of a round |
//! | [`fleet`] | the two crowds of a run |
//! | [`rounds`] | order of the windows |
//! | [`report`] | ratios, the table, the JSON file |
//!
//! Clients, frames and CPU time are [`trunkline_generator`], processes and medians [`trunkline_bench`].

mod answerer;
mod arguments;
mod broadcast;
mod crowd;
mod fleet;
mod part;
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
use broadcast::{ProtocolMix, To};
use crowd::BystanderArguments;
use report::Report;
use settings::Settings;
use stalled::StalledArguments;
use transport::Transport;
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;
use work::Work;
use writer::WriterArguments;

/// Deliveries per CPU second of the proxy, compared with a bare epoll writer with equal writes.
#[derive(Debug, Parser)]
#[command(name = "floor", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    settings: Settings,
}

/// Further processes of a run, also from this program.
#[derive(Debug, Subcommand)]
enum Role {
    /// Process of the floor.
    #[command(hide = true)]
    Writer(WriterArguments),
    /// Receivers of one server.
    #[command(hide = true)]
    Crowd(CrowdArguments),
    /// Clients that have stopped reading.
    #[command(hide = true)]
    Stalled(StalledArguments),
    /// Clients that stay idle.
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
    let is_json = settings.speech == ProtocolMix::Json;
    let is_plain = settings.transport == Transport::WebSockets;
    ensure!(
        is_plain || (is_everyone && is_json),
        "--transport is for broadcasts to everyone in json at one proxy only"
    );
    let mut fleet = fleet::Fleet::start(&settings)?;
    print_line(&report::heading(&settings));
    let windows = rounds::measure(&mut fleet, &settings, |window| print_line(&report::row(&settings, window)))?;
    let report = Report::new(settings, windows)?;
    print_line(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
