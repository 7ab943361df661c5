#![forbid(unsafe_code)]
//! Cost of a fleet: messages that enter at one node compared with messages sent by the app server, idle nodes, and
//! unused `--peers`; cost of dial-in compared with dialled links; and cost of stateful reconnects.
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
//! | `idle` | nodes without `--peers`, without clients | nodes with `--peers` |
//! | `plain` | the app server sends to everyone, nodes without `--peers` | nodes with `--peers` |
//! | `door` | the app server sends to everyone, over links dialled by the node | links dialled by the app server |
//! | `door-calls` | clients call the app server, over links dialled by the node | links dialled by the app server |
//! | `move` | clients with cut sockets reconnect to their node | they reconnect to another node, which takes them over |
//! | `stateful` | the app server sends to everyone, in a hub without stateful reconnect | in a hub that allows it, to clients that don't use it |
//!
//! **Measurements.** CPU time of all nodes together, measured by the scheduler in nanoseconds and read while they
//! sleep; and the bytes sent between nodes, on connections to their admin ports (TCP payload: includes the encrypted
//! channel, but not IP and TCP headers). Each message is requested after all clients have received the previous one,
//! and is compared byte by byte.
//!
//! **Validity.** Speed drifts within minutes, so only adjacent windows are comparable: each round has windows of the
//! base, the subject and the base again, in rotating order, and yields one ratio. The difference between both base
//! windows is the noise of the ratio.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`figures`] | windows and rounds |
//! | [`between`] | bytes between nodes, according to the system |
//! | [`entry`] | entry points of messages, and the publisher |
//! | [`returns`] | clients that are cut and reconnect |
//! | [`scene`] | nodes, their clients, and a window of work |
//! | [`report`] | ratios, the table |
//!
//! Clients, frames and CPU time are [`trunkline_generator`], processes and medians [`trunkline_bench`].

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
use trunkline_bench::rounds::in_turn;
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

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
    print_line(&report::heading(&settings));
    let mut rounds = Vec::new();
    for number in 1..=settings.pairs {
        let mut round = Round::default();
        for part in in_turn(Part::ALL, number) {
            let window = pair.window(part)?;
            print_line(&report::row(&settings, number, part, &window));
            *round.of(part) = window;
        }
        rounds.push(round);
    }
    let report = Report::new(settings, rounds)?;
    print_line(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}
