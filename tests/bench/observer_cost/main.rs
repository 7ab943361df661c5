#![forbid(unsafe_code)]
//! Cost of the observer: CPU time of a proxy per message with the observer page open, and without.
//!
//! ```text
//!   trunkline-load, N clients in rooms ══► proxy ══► app server
//!                                            ▲
//!                    /api/events, /api/clients: a page, open in some windows and not in others
//! ```
//!
//! **What is compared.** One proxy with one crowd, for all windows: the load tester's `chat` with as many rooms as make
//! some 5 000 deliveries a second out of 10 000 clients. A message is one that a client sent or one that a client was
//! given, as `/metrics` counts them. CPU time is that of all threads of the proxy, as the scheduler counts it in
//! nanoseconds: what the admin port does is in it. An open page is what Chromium asks for when the list of clients is
//! shown: the stream of events, read as fast as it comes, and the first page of the list each second.
//!
//! **What it is worth.** Speed drifts within minutes, so only windows side by side compare: each round has a window
//! without a page, one with it, and one without again, begins with another of them each time, and gives one ratio. How
//! far the windows without a page differ is the noise that the ratio has too.
//!
//! | module | what it holds |
//! |---|---|
//! | [`page`] | a page that is open |
//! | [`figures`] | settings, and the figures of rounds |
//! | [`report`] | ratios, the table |
//!
//! Processes, CPU time and medians are [`trunkline_tests::bench`].

mod figures;
mod page;
mod report;

use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use trunkline_generator::cpu::CpuTime;
use trunkline_tests::bench::child::{ChildProcess, say};
use trunkline_tests::bench::command;
use trunkline_tests::bench::product::{Product, program};
use trunkline_tests::bench::rounds::in_turn;

use figures::{Round, Settings, Window};
use page::Page;
use report::Report;

/// Wait before a window, so that earlier work is over.
const SETTLE: Duration = Duration::from_millis(500);

/// Wait before the first window, in which all rooms have spoken.
const WARM_UP: Duration = Duration::from_secs(5);

/// Clients that connect in a second.
const CONNECTS_PER_SECOND: u32 = 500;

/// Deliveries of a second that are wanted of a client, which speaks some 0.0125 times a second on average.
const MEMBERS_OF_A_ROOM: u32 = 40;

/// Role of a window in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Without,
    With,
    WithoutAgain,
}

fn main() -> ExitCode {
    command::finish("observer_cost", measure(Settings::parse()))
}

fn measure(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("observer_cost");
    let product = Product::start(settings.shards)?;
    let mut crowd = crowd(&settings, &product)?;
    crowd_arrives(&settings, &product, &mut crowd)?;
    sleep(WARM_UP);
    say(&report::heading());
    let mut rounds = Vec::new();
    for number in 1..=settings.pairs {
        let round = round(&settings, &product, number)?;
        say(&report::row(number, &round));
        rounds.push(round);
    }
    let report = Report::new(settings, rounds)?;
    say(&report.summary());
    command::write_json(&report, report.settings.json.as_deref())
}

fn crowd(settings: &Settings, product: &Product) -> Result<ChildProcess> {
    let rooms = (settings.clients / MEMBERS_OF_A_ROOM).max(1);
    let rampup_s = settings.clients.div_ceil(CONNECTS_PER_SECOND);
    // Longer than all windows: it ends with this process.
    let run_s = settings.pairs * 3 * (settings.seconds + 2) + 120;
    let mut load = Command::new(program("trunkline-load")?);
    load.args(["chat", "-s", &product.address().to_string(), "-i", "1000"]);
    for (flag, value) in [("-c", settings.clients), ("-g", rooms), ("-u", rampup_s), ("-r", run_s)] {
        load.args([flag, &value.to_string()]);
    }
    ChildProcess::start("load tester", &mut load)
}

/// Waits until all clients are connected: nobody speaks before.
fn crowd_arrives(settings: &Settings, product: &Product, crowd: &mut ChildProcess) -> Result<()> {
    let are_all_there = || {
        let metrics = product.proxy_metrics();
        metrics.is_ok_and(|metrics| metrics.sum("trunkline_client_connections", &[]) >= f64::from(settings.clients))
    };
    sleep(Duration::from_secs(u64::from(settings.clients.div_ceil(CONNECTS_PER_SECOND))));
    crowd.wait_until(are_all_there)
}

fn round(settings: &Settings, product: &Product, number: u32) -> Result<Round> {
    let none = Window { messages: 0.0, cpu_ns: 0, events: 0 };
    let mut round = Round { without: none, with: none, without_again: none };
    for part in in_turn([Part::Without, Part::With, Part::WithoutAgain], number) {
        let window = match part {
            Part::Without => &mut round.without,
            Part::With => &mut round.with,
            Part::WithoutAgain => &mut round.without_again,
        };
        *window = self::window(settings, product, part)?;
    }
    Ok(round)
}

fn window(settings: &Settings, product: &Product, part: Part) -> Result<Window> {
    let page = if part == Part::With { Some(Page::open(product.admin())?) } else { None };
    sleep(SETTLE);
    let messages_before = messages(product)?;
    let events_before = page.as_ref().map_or(0, Page::events);
    let before = CpuTime::of(product.proxy_pid())?;
    sleep(Duration::from_secs(u64::from(settings.seconds)));
    let cpu_ns = CpuTime::of(product.proxy_pid())?.since(&before);
    let events = page.as_ref().map_or(0, Page::events) - events_before;
    let messages = messages(product)? - messages_before;
    ensure!(messages > 0.0, "nobody said anything");
    ensure!((events > 0) == (part == Part::With), "a page was told {events} events in a window {part:?}");
    Ok(Window { messages, cpu_ns, events })
}

fn messages(product: &Product) -> Result<f64> {
    let metrics = product.proxy_metrics()?;
    Ok(["trunkline_deliveries_total", "trunkline_client_messages_total"]
        .iter()
        .map(|name| metrics.sum(name, &[]))
        .sum())
}
