#![forbid(unsafe_code)]
//! Published settings: load tests that earlier systems published, repeated for Trunkline with our load tester.
//!
//! ```text
//!   trunkline-load ──► proxy-1, one core ──┐
//!     its report   ──► proxy-2, one core ──┴─► app server `bench`
//!         └──► rows: target, measurement, ok or MISSED
//! ```
//!
//! Each slice has its own processes. The generator counts lost, duplicated, reordered and misdelivered messages and
//! failures exactly, and measures times, memory and CPU time. Any missed row sets the exit status to 1.
//!
//! | module | contents |
//! |---|---|
//! | [`fleet`] | app server and proxies, children of a separate process |
//! | [`mod@slice`] | settings and targets |
//! | [`report`] | relevant parts of the load tester's report |
//! | [`generator`] | one run of the load tester |
//! | [`verdict`] | from a report to rows |
//! | [`table`] | formatted rows |

mod fleet;
mod generator;
mod report;
mod slice;
mod table;
mod verdict;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

use fleet::Fleet;
use slice::{Length, Slice};

/// The published settings of the load tests, and whether Trunkline meets them. Without a command: a short version of
/// all.
#[derive(Debug, Parser)]
#[command(name = "published")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings of a run.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// A broadcast every 3 s to 1 000 clients at each of two proxies, for 5 minutes
    Broadcast,
    /// A chat of 500 clients at each of two proxies in 10 rooms, for 5 minutes
    Chat,
    /// Ten consecutive clean runs of 30 s
    Ten,
    /// 15 000 clients of one generator, to measure its own cost
    Many,
    /// All of these slices
    All,
    /// App server and proxies, as a process
    #[command(hide = true)]
    Fleet,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        None => measure(&Slice::ALL, Length::Short),
        Some(Command::Broadcast) => measure(&[Slice::Broadcast], Length::Full),
        Some(Command::Chat) => measure(&[Slice::Chat], Length::Full),
        Some(Command::Ten) => measure(&[Slice::Ten], Length::Full),
        Some(Command::Many) => measure(&[Slice::Many], Length::Full),
        Some(Command::All) => measure(&Slice::ALL, Length::Full),
        Some(Command::Fleet) => fleet::serve(),
    };
    command::finish("published", done)
}

fn measure(slices: &[Slice], length: Length) -> Result<()> {
    command::warn_of_debug_build("published");
    let mut rows = Vec::new();
    for slice in slices {
        let fleet = Fleet::start()?;
        for load in slice.loads(length) {
            print_line(&table::heading(&load));
            let report = generator::run(&load, &fleet)?;
            report.warnings.iter().for_each(|warning| print_line(&format!("! {warning}")));
            rows.extend(verdict::judge(&load, &report));
        }
    }
    print_line(&table::whole(&rows));
    table::missed(&rows)
}
