#![forbid(unsafe_code)]
//! Cost of an app server behind a proxy: CPU time per call, and bytes of memory per idle connection.
//!
//! ```text
//!   callers ── Echo("7…") ──► bare handler                    ── "7…" ──► callers
//!   callers ── Echo("7…") ──► proxy ══ 5 links ══► app server ══► proxy ── "7…" ──► callers
//! ```
//!
//! **Calls.** Clients keep a fixed number of calls outstanding until a fixed number of calls is answered: by `Echo` of
//! the app server `bench` behind one proxy, and by a bare axum WebSocket handler, which parses each invocation with
//! serde_json and answers with a completion of the same bytes. Each answer is compared with the one that is due: what
//! is lost, comes twice, out of turn or to somebody else ends the run. What is compared is CPU time of the app server's
//! threads, as the scheduler counts it in nanoseconds, with that of the bare handler's; the proxy's is another
//! machine's, and is shown beside it.
//!
//! **What is not equal.** The bare handler pays a read and a write of a socket per call, unless a client has several
//! calls on the way. Behind a proxy the calls of many clients share a few links: the more come at once, the more share
//! a read, a write and a wake-up. So the ratio depends on the load: with one client and one call outstanding nothing is
//! shared, and what a call costs is mostly wake-ups, of which the app server has more; with many outstanding it pays
//! less per call than the bare handler. `--loads 1x1,64x1,64x16` shows all of it.
//!
//! **What it is worth.** Speed drifts within minutes, so only runs side by side compare: each round has a window of the
//! bare handler, one of the app server and one of the bare handler again, begins with another of them each time, and
//! gives one ratio. How far the bare handler differs from itself is the noise that the app server's ratio has too.
//!
//! **Memory.** Clients connect through one proxy and say nothing more, first N and then N again; new processes each
//! time. The growth of the app server's anonymous memory, heap and stacks, is told per connection: of the first N,
//! which pay for pools and tables that others use later, and from N to 2 N, where such costs cancel out. Once with the
//! headers that a WebSocket needs, and once with those of Chromium and an access token of ten claims, none of them the
//! same for two clients. The kernel's memory, such as the sockets' buffers of the proxy, is in no figure.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`browser`] | what a client sends with its connect request |
//! | [`bare`] | the bare handler |
//! | [`caller`] | one client that calls |
//! | [`callers`] | all clients at one server, a process too: calls, checks, reads the CPU time |
//! | [`windows`] | which window comes when |
//! | [`round_trips`] | one client that waits for one answer |
//! | [`idle`] | clients that say nothing, a process too: connects, reads the memory |
//! | [`calls_report`], [`memory_report`] | ratios, the tables |
//!
//! Processes, CPU time, frames and medians are [`trunkline_tests::bench`].

mod bare;
mod browser;
mod caller;
mod callers;
mod calls_report;
mod idle;
mod memory_report;
mod round_trips;
mod settings;
mod windows;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;
use trunkline_tests::bench::child::say;
use trunkline_tests::bench::command;

use bare::BareArguments;
use callers::CallersArguments;
use calls_report::CallsReport;
use idle::IdleArguments;
use memory_report::MemoryReport;
use round_trips::RoundTripReport;
use settings::{Settings, Subject};

/// CPU time per call and memory per idle connection of an app server behind a proxy.
#[derive(Debug, Parser)]
#[command(name = "app_cost", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    settings: Settings,
}

/// The other processes of a run are this program, too.
#[derive(Debug, Subcommand)]
enum Role {
    /// The bare handler, as a process.
    #[command(hide = true)]
    Bare(BareArguments),
    /// The clients that call one server.
    #[command(hide = true)]
    Callers(CallersArguments),
    /// The clients that say nothing.
    #[command(hide = true)]
    Idle(IdleArguments),
}

/// All figures of a run.
#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    calls: Vec<CallsReport>,
    memory: Option<MemoryReport>,
    round_trips: Option<RoundTripReport>,
}

fn main() -> ExitCode {
    let Cli { role, settings } = Cli::parse();
    let done = match role {
        Some(Role::Bare(arguments)) => bare::run(&arguments),
        Some(Role::Callers(arguments)) => callers::run(&arguments),
        Some(Role::Idle(arguments)) => idle::run(&arguments),
        None => measure(settings),
    };
    command::finish("app_cost", done)
}

fn measure(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("app_cost");
    let mut calls = Vec::new();
    let is_wanted = |subject| settings.only.is_none_or(|only| only == subject);
    if is_wanted(Subject::Calls) {
        for load in &settings.loads {
            calls.push(calls_report::measure(*load, &settings, say)?);
        }
    }
    let round_trips = is_wanted(Subject::RoundTrips).then(|| round_trips::measure(&settings, say)).transpose()?;
    let memory = is_wanted(Subject::Memory).then(|| memory_report::measure(&settings, say)).transpose()?;
    let report = Report { settings, calls, memory, round_trips };
    say(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}

impl Report {
    fn summary(&self) -> String {
        let calls = self.calls.iter().map(CallsReport::summary);
        let round_trips = self.round_trips.iter().map(RoundTripReport::summary);
        calls.chain(round_trips).chain(self.memory.iter().map(MemoryReport::summary)).collect()
    }
}
