#![forbid(unsafe_code)]
//! Cost of a proxy's work other than serving clients: CPU time per message, and round trips of a client, with and
//! without a companion.
//!
//! ```text
//!   trunkline-load, N clients in rooms ══► proxy ══► app server
//!   probe, one call at a time ───────────►   ▲
//!                                            companion, present only in some windows
//! ```
//!
//! | `--beside` | companion |
//! |---|---|
//! | `page` | Chromium's requests for the list of clients: the event stream, read as fast as possible, and the first page of the list each second |
//! | `trace` | a live trace of a method, by default of all deliveries, read as fast as possible |
//! | `mirror` | a mirror of the hub, configured in the node's file, with a frozen app server |
//! | `rebalance` | a new app server that receives clients each second |
//!
//! **Comparison.** One proxy with one crowd for all windows: the load tester's `chat`, with enough rooms for about 5
//! 000 deliveries per second to 10 000 clients. Messages are those sent by or delivered to clients according to
//! `/metrics`, including the probe's. CPU time covers all threads of the proxy, measured by the scheduler in
//! nanoseconds, including the admin port. Round trips are those of the probe, a client of the hub that repeatedly calls
//! `Echo`, waits and pauses.
//!
//! **Validity.** Speed drifts within minutes, so only adjacent windows are comparable: each round has windows without
//! the companion, with it, and without it again, in rotating order, and yields one ratio per result. The difference
//! between the windows without it is the noise of the ratio. The proxy shares its cores with the crowd, the app servers
//! and stream readers, which affects the round trips.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`window`] | results of windows and rounds |
//! | [`companion`] | the companion trait, and waiting for the proxy's counters |
//! | [`admin_stream`] | an admin port stream that is read and counted |
//! | [`page`], [`tracer`], [`mirror`], [`new_server`] | the companions |
//! | [`scene`] | the proxy, its crowd and the companion, and a window of them |
//! | [`report`] | ratios, the table |
//!
//! Processes, the probe and medians are [`trunkline_bench`], CPU time is [`trunkline_generator`].

mod admin_stream;
mod companion;
mod mirror;
mod new_server;
mod page;
mod report;
mod scene;
mod settings;
mod tracer;
mod window;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use trunkline_bench::rounds::in_turn;
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

use report::Report;
use scene::Scene;
use settings::Settings;
use window::{Part, Round};

fn main() -> ExitCode {
    command::finish("beside_cost", measure(Settings::parse()))
}

fn measure(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("beside_cost");
    let mut scene = Scene::start(&settings)?;
    print_line(&report::heading(&settings));
    let mut rounds = Vec::new();
    for number in 1..=settings.pairs {
        let mut round = Round::default();
        for part in in_turn(Part::ALL, number) {
            *round.of(part) = scene.window(part)?;
        }
        print_line(&report::rows(number, &round));
        rounds.push(round);
    }
    let report = Report::new(settings, rounds)?;
    print_line(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
