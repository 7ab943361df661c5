#![forbid(unsafe_code)]
//! Cost of a group membership: CPU time of the proxy for joining and leaving, and its memory, for 10 000 to 1 000 000
//! memberships.
//!
//! ```text
//!   1 000 clients ── JoinGroups([100 names]) ──► proxy ──► app server ── 100 joins, each acknowledged ──► proxy
//! ```
//!
//! Each row has its own proxy and app server. A call is answered when its last join is acknowledged, so all memberships
//! exist when all calls are answered. The proxy's group count must agree, and return to zero when all have left. CPU
//! time is read when all calls are answered, so it includes the calls themselves.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use trunkline_bench::product::Product;
use trunkline_bench::spread::Spread;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::memory::Memory;
use trunkline_generator::{connect, frame};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

/// Client connections, each with an equal share of the memberships.
const CLIENTS: usize = 1_000;

/// Memberships of a row, over all clients.
const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];

/// Names per call, below the maximum message size.
const NAMES: usize = 100;

/// Time limit for the proxy's group count, which is updated once a second.
const PATIENCE: Duration = Duration::from_secs(15);

/// Polling interval of that count.
const LOOK: Duration = Duration::from_millis(150);

const KIBIBYTE: f64 = 1_024.0;

/// Cost of joining, of a membership and of leaving.
#[derive(Debug, Parser, Serialize)]
#[command(name = "memberships")]
struct Settings {
    /// Members of each group
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    members: u32,
    /// Rounds, each with every row
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<PathBuf>,
}

/// Costs of one row in one round, per membership.
#[derive(Debug, Clone, Copy, Serialize)]
struct Costs {
    join_us: f64,
    leave_us: f64,
    app_join_us: f64,
    app_leave_us: f64,
    bytes: f64,
    /// Memory growth of the proxy after all have left, kept by the allocator.
    left_kib: f64,
    /// Further memory growth after joining and leaving again: none, if the allocator reuses memory.
    again_kib: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    memberships: usize,
    groups: usize,
    rounds: Vec<Costs>,
}

#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    command::finish("memberships", measure(Settings::parse()))
}

fn measure(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("memberships");
    let members = usize::try_from(settings.members)?;
    let groups = |size| size / CLIENTS * CLIENTS.div_ceil(members);
    let mut rows = SIZES.map(|memberships| Row { memberships, groups: groups(memberships), rounds: Vec::new() });
    for round in 1..=settings.rounds {
        for row in &mut rows {
            let costs = Scene::start()?.measure(row, members)?;
            print_line(&format!("round {round}: {}", line(row, |of| Ok(of(&costs)))?));
            row.rounds.push(costs);
        }
    }
    print_line("\nmedians");
    for row in &rows {
        print_line(&line(row, |of| Ok(Spread::of(row.rounds.iter().map(of))?.median))?);
    }
    let report = Report { settings, rows: rows.into() };
    command::write_json(&report, report.settings.json.as_deref())
}

fn line(row: &Row, figure: impl Fn(fn(&Costs) -> f64) -> Result<f64>) -> Result<String> {
    Ok(format!(
        "{:9} memberships in {:6} groups: join {:6.2} us, leave {:6.2} us; app server {:6.2} us, {:6.2} us; \
         {:3.0} bytes each; {:6.0} KiB more when all have left, {:+.0} KiB the next time",
        row.memberships,
        row.groups,
        figure(|costs| costs.join_us)?,
        figure(|costs| costs.leave_us)?,
        figure(|costs| costs.app_join_us)?,
        figure(|costs| costs.app_leave_us)?,
        figure(|costs| costs.bytes)?,
        figure(|costs| costs.left_kib)?,
        figure(|costs| costs.again_kib)?,
    ))
}

struct Scene {
    product: Product,
    clients: Vec<(TcpStream, Vec<u8>)>,
}

impl Scene {
    fn start() -> Result<Self> {
        let product = Product::start(1)?;
        let clients = (0..CLIENTS).map(|_| connect::to_hub(product.address(), "/bench", "")).collect::<Result<_>>()?;
        Ok(Self { product, clients })
    }

    fn measure(mut self, row: &Row, members: usize) -> Result<Costs> {
        let each = row.memberships / CLIENTS;
        // The first call allocates permanent lists and buffers of every proxy.
        self.call_all("JoinGroups", 1, 1)?;
        self.call_all("LeaveGroups", 1, 1)?;
        let before = self.memory_bytes()?;
        let join = self.cost_of("JoinGroups", each, members)?;
        let with = self.memory_bytes()?;
        self.expect_groups(row.groups)?;
        let leave = self.cost_of("LeaveGroups", each, members)?;
        self.expect_groups(0)?;
        let after = self.memory_bytes()?;
        self.call_all("JoinGroups", each, members)?;
        self.call_all("LeaveGroups", each, members)?;
        let again = self.memory_bytes()?;
        let us = |ns: u64| micros(ns) / number(row.memberships);
        Ok(Costs {
            join_us: us(join[0]),
            leave_us: us(leave[0]),
            app_join_us: us(join[1]),
            app_leave_us: us(leave[1]),
            bytes: (with - before) / number(row.memberships),
            left_kib: (after - before) / KIBIBYTE,
            again_kib: (again - after) / KIBIBYTE,
        })
    }

    /// CPU time of proxy and app server in ns, until all calls are answered.
    fn cost_of(&mut self, method: &str, each: usize, members: usize) -> Result<[u64; 2]> {
        let pids = [self.product.proxy_pid(), self.product.app_pid()];
        let before = pids.map(CpuTime::of);
        self.call_all(method, each, members)?;
        let mut used = [0; 2];
        for ((used, pid), before) in used.iter_mut().zip(pids).zip(before) {
            *used = CpuTime::of(pid)?.since(&before?);
        }
        Ok(used)
    }

    /// Calls the method for the groups of every client, some at a time, and waits for the answers.
    fn call_all(&mut self, method: &str, each: usize, members: usize) -> Result<()> {
        for first in (0..each).step_by(NAMES) {
            let numbers = first..each.min(first + NAMES);
            for (client, (socket, _)) in self.clients.iter_mut().enumerate() {
                let block = client / members;
                let names: Vec<_> = numbers.clone().map(|number| format!("\"g-{block}-{number}\"")).collect();
                let names = names.join(",");
                let call = format!(
                    "{{\"type\":1,\"invocationId\":\"1\",\"target\":\"{method}\",\"arguments\":[[{names}]]}}\x1e"
                );
                socket.write_all(&frame::from_client(call.as_bytes())).context("the server takes no more")?;
            }
            self.clients.iter_mut().try_for_each(answered)?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> Result<f64> {
        Ok(number(usize::try_from(Memory::of(self.product.proxy_pid())?.anonymous_bytes)?))
    }

    fn expect_groups(&self, wanted: usize) -> Result<()> {
        let started = Instant::now();
        loop {
            let groups = self.product.proxy_metrics()?.sum("trunkline_groups", &[]);
            if (groups - number(wanted)).abs() < 0.5 {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "the proxy has {groups} groups where {wanted} are due");
            sleep(LOOK);
        }
    }
}

fn answered((socket, early): &mut (TcpStream, Vec<u8>)) -> Result<()> {
    let (answer, rest) = connect::next_message(socket, std::mem::take(early), Hub::Json)?;
    *early = rest;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.contains("\"type\":3") && !answer.contains("\"error\""), "{answer}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "numbers of some minutes need less than 52 bits")]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "what a machine holds needs less than 52 bits")]
fn number(of: usize) -> f64 {
    of as f64
}
