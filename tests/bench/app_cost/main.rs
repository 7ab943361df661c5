#![forbid(unsafe_code)]
//! Cost of an app server behind a proxy: CPU time per call, and bytes of memory per idle connection.
//!
//! ```text
//!   callers ── Echo("7…") ──► bare handler                    ── "7…" ──► callers
//!   callers ── Echo("7…") ──► proxy ══ 5 links ══► app server ══► proxy ── "7…" ──► callers
//! ```
//!
//! **Calls.** Clients keep a fixed number of calls pending until a fixed total is answered: by `Echo` of the app server
//! `bench` behind a proxy, and by a bare axum WebSocket handler that parses each invocation with serde_json and returns
//! an equal completion. Each answer is compared with the expected one; a lost, duplicated, reordered or misdelivered
//! answer ends the run. The comparison covers CPU time of the app server's threads, measured by the scheduler in
//! nanoseconds, and of the bare handler's. The proxy's CPU time belongs to another machine and is shown separately.
//!
//! **Differences.** The bare handler needs a socket read and write per call, unless a client has several pending calls.
//! Behind a proxy, the calls of many clients share a few links: the more arrive simultaneously, the more share a read,
//! write and wake-up. So the ratio depends on the load: with one client and one pending call nothing is shared, and
//! wake-ups dominate, of which the app server has more; with many pending calls, a call costs less than at the bare
//! handler. `--loads 1x1,64x1,64x16` shows the range.
//!
//! **Validity.** Speed drifts within minutes, so only adjacent runs are comparable: each round has windows of the bare
//! handler, the app server and the bare handler again, in rotating order, and yields one ratio. The difference between
//! both bare handler windows is the noise of the ratio.
//!
//! **Memory.** Clients connect through a proxy and stay idle, first N and then N more, with new processes each time.
//! The growth of the app server's anonymous memory (heap and stacks) is reported per connection: for the first N,
//! including pools and tables for later clients, and from N to 2 N, where such costs cancel out. Measured once with
//! minimal WebSocket headers, and once with Chromium's headers and an access token with ten claims, different for each
//! client. Kernel memory, such as the proxy's socket buffers, is not included.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`browser`] | connect requests of clients |
//! | [`bare`] | the bare handler |
//! | [`caller`] | one calling client |
//! | [`callers`] | process with all clients of one server: calls, checks, reads the CPU time |
//! | [`windows`] | order of the windows |
//! | [`round_trips`] | one client with one pending call |
//! | [`idle`] | process with idle clients: connects, reads the memory |
//! | [`calls_report`], [`memory_report`] | ratios, tables |
//!
//! Processes, CPU time, frames and medians are [`trunkline_bench`].

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
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

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

/// Further processes of a run, also from this program.
#[derive(Debug, Subcommand)]
enum Role {
    /// Process of the bare handler.
    #[command(hide = true)]
    Bare(BareArguments),
    /// Clients that call one server.
    #[command(hide = true)]
    Callers(CallersArguments),
    /// Clients that stay idle.
    #[command(hide = true)]
    Idle(IdleArguments),
}

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
            calls.push(calls_report::measure(*load, &settings, print_line)?);
        }
    }
    let round_trips =
        is_wanted(Subject::RoundTrips).then(|| round_trips::measure(&settings, print_line)).transpose()?;
    let memory = is_wanted(Subject::Memory).then(|| memory_report::measure(&settings, print_line)).transpose()?;
    let report = Report { settings, calls, memory, round_trips };
    print_line(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}

impl Report {
    fn summary(&self) -> String {
        let calls = self.calls.iter().map(CallsReport::summary);
        let round_trips = self.round_trips.iter().map(RoundTripReport::summary);
        calls.chain(round_trips).chain(self.memory.iter().map(MemoryReport::summary)).collect()
    }
}
