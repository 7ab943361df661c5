#![forbid(unsafe_code)]
//! Cost of what a proxy does beside serving its clients: CPU time per message, and round trips of a client, with a
//! companion and without.
//!
//! ```text
//!   trunkline-load, N clients in rooms ══► proxy ══► app server
//!   probe, one call at a time ───────────►   ▲
//!                                            companion, there in some windows and not in others
//! ```
//!
//! | `--beside` | companion |
//! |---|---|
//! | `page` | what Chromium asks for when the list of clients is shown: the stream of events, read as fast as it comes, and the first page of the list each second |
//! | `trace` | a live trace of a method, that of all deliveries unless told otherwise, read as fast as it comes |
//! | `mirror` | a mirror of the hub, whose rule is put into the node's file and whose app server is frozen as long as it is there |
//! | `rebalance` | an app server that has come, and is given clients by the second |
//!
//! **What is compared.** One proxy with one crowd, for all windows: the load tester's `chat` with as many rooms as make
//! some 5 000 deliveries a second out of 10 000 clients. A message is one that a client sent or one that a client was
//! given, as `/metrics` counts them, with those of the probe. CPU time is that of all threads of the proxy, as the
//! scheduler counts it in nanoseconds: what the admin port does is in it. Round trips are those of the probe, a client
//! of the same hub that calls `Echo`, waits, pauses a moment, and calls again.
//!
//! **What it is worth.** Speed drifts within minutes, so only windows side by side compare: each round has a window
//! without the companion, one with it, and one without again, begins with another of them each time, and gives one
//! ratio of each figure. How far the windows without it differ is the noise that the ratio has too. The proxy shares
//! its cores with the crowd, the app servers and whoever reads a stream, so what these do is in the round trips.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`window`] | figures of windows and rounds |
//! | [`companion`] | the trait of companions, and waits for the proxy's counters |
//! | [`admin_stream`] | a stream of the admin port that is read and counted |
//! | [`page`], [`tracer`], [`mirror`], [`newcomer`] | the companions |
//! | [`scene`] | the proxy, its crowd and the companion, and a window of them |
//! | [`report`] | ratios, the table |
//!
//! Processes, the probe and medians are [`trunkline_tests::bench`], CPU time is [`trunkline_generator`].

mod admin_stream;
mod companion;
mod mirror;
mod newcomer;
mod page;
mod report;
mod scene;
mod settings;
mod tracer;
mod window;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use trunkline_tests::bench::child::say;
use trunkline_tests::bench::command;
use trunkline_tests::bench::rounds::in_turn;

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
    say(&report::heading(&settings));
    let mut rounds = Vec::new();
    for number in 1..=settings.pairs {
        let mut round = Round::default();
        for part in in_turn(Part::ALL, number) {
            *round.of(part) = scene.window(part)?;
        }
        say(&report::rows(number, &round));
        rounds.push(round);
    }
    let report = Report::new(settings, rounds)?;
    say(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
