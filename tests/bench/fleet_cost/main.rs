#![forbid(unsafe_code)]
//! Cost of a fleet: what enters at one node beside what the app server sends itself, idle nodes, `--peers` where it is
//! not used; of dial-in, beside links that the node dials; and of clients that come back to their connections.
//!
//! ```text
//!   base:     client ── Broadcast("7…") ──► app server ──► all nodes ──► their clients
//!   subject:  POST /api/announce ──► one node ──► the other nodes ──► their clients
//! ```
//!
//! | `--work` | base | subject |
//! |---|---|---|
//! | `broadcast` | the app server sends to everyone | an announcement to everyone, at one node |
//! | `group` | the app server sends to a group of all clients here, ten by default | an announcement to that group |
//! | `idle` | nodes without `--peers`, without clients | nodes with it |
//! | `plain` | the app server sends to everyone, nodes without `--peers` | the same with it |
//! | `door` | the app server sends to everyone, over links that the node dials | the same over links that it dials itself |
//! | `door-calls` | clients call the app server, over such links | the same over links that it dials itself |
//! | `move` | clients whose sockets are cut come back to the node that has them | they come back to another one, which takes them over |
//! | `stateful` | the app server sends to everyone, from a hub without stateful reconnect | from one that allows it, to clients that don't use it |
//!
//! **What is counted.** CPU time of all nodes together, as the scheduler counts it in nanoseconds, read while they
//! sleep; and the bytes that the system has sent on connections to their admin ports, which are those between nodes
//! (TCP payload: the encrypted channel is in it, headers of IP and TCP are not). A message is asked for only when all
//! have got the one before, and is compared byte by byte.
//!
//! **What it is worth.** Speed drifts within minutes, so only windows side by side compare: each round has a window of
//! the base, one of the subject and one of the base again, begins with another of them each time, and gives one ratio.
//! How far the base differs from itself is the noise that the ratio has too.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`figures`] | windows and rounds |
//! | [`between`] | bytes between nodes, as the system counts them |
//! | [`entry`] | where a message enters, and its publisher |
//! | [`returns`] | clients that are cut and come back |
//! | [`scene`] | nodes, their clients, and a window of work |
//! | [`report`] | ratios, the table |
//!
//! Clients, frames and CPU time are [`trunkline_generator`], processes and medians [`trunkline_tests::bench`].

mod between;
mod entry;
mod figures;
mod report;
mod returns;
mod scene;
mod settings;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use trunkline_tests::bench::child::say;
use trunkline_tests::bench::command;
use trunkline_tests::bench::rounds::in_turn;

use figures::{Part, Round};
use report::Report;
use scene::Pair;
use settings::Settings;

fn main() -> ExitCode {
    command::finish("fleet_cost", measure(Settings::parse()))
}

fn measure(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("fleet_cost");
    let mut pair = Pair::start(&settings)?;
    say(&report::heading(&settings));
    let mut rounds = Vec::new();
    for number in 1..=settings.pairs {
        let mut round = Round::default();
        for part in in_turn(Part::ALL, number) {
            let window = pair.window(part)?;
            say(&report::row(&settings, number, part, &window));
            *round.of(part) = window;
        }
        rounds.push(round);
    }
    let report = Report::new(settings, rounds)?;
    say(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
