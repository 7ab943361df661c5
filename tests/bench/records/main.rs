#![forbid(unsafe_code)]
//! Cost of records: deliveries to members and followers of a recorded group, returns of followers, and appends.
//!
//! | `--work` | base | compared with |
//! |---|---|---|
//! | `deliveries` | deliveries to an unrecorded group, per CPU second of the node | recorded groups without and with followers; and a hub without records |
//! | `returns` | 10 000 clients connect simultaneously and join 100 groups, each client one | they also follow it and get 100 missed messages; and clients of Centrifugo recover as many |
//! | `appends` | a send to an unrecorded group by REST | to a recorded group: in memory, with one NATS server, with three |
//!
//! **Validity.** Speed drifts within minutes, so only adjacent windows are comparable: each round has one window of
//! each row, in rotating order, and one of the base again. Ratios and differences are within a round. The second
//! window of the base shows the noise.
//!
//! | module | contents |
//! |---|---|
//! | [`table`] | rows, medians and goals |
//! | [`requester`] | sequential HTTP requests |
//! | [`deliveries`] | deliveries to one group |
//! | [`returns`] | followers that come back |
//! | [`appends`] | sends by REST |

mod appends;
mod deliveries;
mod requester;
mod returns;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use trunkline_tests::harness::command;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Work {
    /// Deliveries per CPU second
    Deliveries,
    /// Followers that come back
    Returns,
    /// Sends to groups by REST
    Appends,
}

/// Cost of records, compared with groups that are not recorded.
#[derive(Debug, Parser)]
#[command(name = "records")]
struct Settings {
    #[arg(long, value_enum)]
    work: Work,
    /// Rounds, each with one window of each row
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of each window
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Program of Centrifugo; without it, its rows are left out
    #[arg(long, value_name = "FILE")]
    centrifugo: Option<PathBuf>,
}

fn main() -> ExitCode {
    command::warn_of_debug_build("records");
    command::finish("records", run(&Settings::parse()))
}

fn run(settings: &Settings) -> Result<()> {
    let Settings { work, rounds, seconds, ref centrifugo } = *settings;
    match work {
        Work::Deliveries => deliveries::measure(rounds, Duration::from_secs(seconds)),
        Work::Returns => returns::measure(rounds, centrifugo.as_deref()),
        Work::Appends => appends::measure(rounds, Duration::from_secs(seconds)),
    }
}
