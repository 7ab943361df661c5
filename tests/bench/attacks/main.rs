#![forbid(unsafe_code)]
//! Cost of an attack for regular clients: round trips of a client and of a forwarded request, and CPU time and memory
//! of the proxy, compared with an unattacked twin.
//!
//! ```text
//!  attackers ── attack ─────────────────────► proxy ──► app server
//!  a client ── Echo, GET, one by one, timed ──► proxy ──► app server
//! ```
//!
//! Each attack and each twin has its own proxy and app server; they alternate in each round. An attack stays far below
//! the proxy's limits, to measure its cost while it is allowed.

mod attack;
mod busy_clients;
mod busy_links;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use trunkline_bench::product::Product;
use trunkline_bench::spread::Spread;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::histogram::Histogram;
use trunkline_generator::memory::Memory;
use trunkline_generator::{connect, frame};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

use attack::Attack;

const KIBIBYTE: f64 = 1_024.0;

/// Costs of attacks, compared with an unattacked twin.
#[derive(Debug, Parser, Serialize)]
#[command(name = "attacks")]
struct Settings {
    /// Sockets of an attack
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    sockets: u32,
    /// Round trips of the client, of each kind
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    calls: u32,
    /// Rounds, each with every attack and its twin
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measure only the attack of this name
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Prices {
    echo_p50_us: f64,
    echo_p99_us: f64,
    /// Times of a forwarded request.
    passed_p50_us: f64,
    passed_p99_us: f64,
    /// CPU time of the proxy per round trip of the client.
    cpu_us: f64,
    /// Memory growth of the proxy during the attack.
    memory_kib: f64,
}

type Figure = fn(&Prices) -> f64;

/// Costs of an attack and its twin, by round.
#[derive(Debug, Serialize)]
struct Row {
    attack: Attack,
    attacked: Vec<Prices>,
    twin: Vec<Prices>,
}

#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    command::finish("attacks", measure(Settings::parse()))
}

fn measure(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("attacks");
    let mut rows = Attack::ALL.map(|attack| Row { attack, attacked: Vec::new(), twin: Vec::new() });
    let names = Attack::ALL.map(Attack::name);
    let is_known = settings.only.as_deref().is_none_or(|only| names.contains(&only));
    ensure!(is_known, "--only expects one of: {}", names.join(", "));
    for round in 1..=settings.rounds {
        let is_wanted = |row: &&mut Row| settings.only.as_ref().is_none_or(|only| row.attack.name() == only);
        for row in rows.iter_mut().filter(is_wanted) {
            row.twin.push(Scene::start()?.measure(None, &settings)?);
            row.attacked.push(Scene::start()?.measure(Some(row.attack), &settings)?);
            print_line(&format!("round {round}: {}", row.attack.name()));
        }
    }
    print_line("\nmedians: attacked, and its twin");
    for row in rows.iter().filter(|row| !row.twin.is_empty()) {
        print_line(&format!("{:20} {}", row.attack.name(), line(row)?));
    }
    let report = Report { settings, rows: rows.into() };
    command::write_json(&report, report.settings.json.as_deref())
}

fn line(row: &Row) -> Result<String> {
    let figures: [(&str, Figure); 6] = [
        ("echo p50 us", |prices| prices.echo_p50_us),
        ("p99", |prices| prices.echo_p99_us),
        ("passed through p50 us", |prices| prices.passed_p50_us),
        ("p99", |prices| prices.passed_p99_us),
        ("CPU us", |prices| prices.cpu_us),
        ("memory KiB", |prices| prices.memory_kib),
    ];
    let shown: Result<Vec<_>> = figures
        .iter()
        .map(|(name, figure)| {
            let median = |prices: &[Prices]| Ok::<_, anyhow::Error>(Spread::of(prices.iter().map(figure))?.median);
            Ok(format!("{name} {:.0} / {:.0}", median(&row.attacked)?, median(&row.twin)?))
        })
        .collect();
    Ok(shown?.join("; "))
}

struct Scene {
    product: Product,
    client: (TcpStream, Vec<u8>),
}

impl Scene {
    fn start() -> Result<Self> {
        let product = Product::start(1)?;
        let client = connect::to_hub(product.address(), "/bench", "")?;
        Ok(Self { product, client })
    }

    fn measure(mut self, attack: Option<Attack>, settings: &Settings) -> Result<Prices> {
        // The proxy's first requests have one-time costs.
        self.echo()?;
        self.pass_through()?;
        let memory_before = self.memory_kib()?;
        let running = attack.map(|attack| attack.begin(self.product.address(), settings.sockets)).transpose()?;
        let cpu_before = CpuTime::of(self.product.proxy_pid())?;
        let (mut echoes, mut passed) = (Histogram::default(), Histogram::default());
        for _ in 0..settings.calls {
            echoes.record(timed(|| self.echo())?);
            passed.record(timed(|| self.pass_through())?);
        }
        let cpu_ns = CpuTime::of(self.product.proxy_pid())?.since(&cpu_before);
        let memory_kib = self.memory_kib()? - memory_before;
        running.map_or(Ok(()), attack::RunningAttack::end)?;
        let (echoes, passed) = (echoes.quantiles(), passed.quantiles());
        let cpu_us = number(cpu_ns) / 1_000.0 / (2.0 * f64::from(settings.calls));
        Ok(Prices {
            echo_p50_us: number(echoes.p50_us),
            echo_p99_us: number(echoes.p99_us),
            passed_p50_us: number(passed.p50_us),
            passed_p99_us: number(passed.p99_us),
            cpu_us,
            memory_kib,
        })
    }

    fn echo(&mut self) -> Result<()> {
        let (socket, early) = &mut self.client;
        let call = b"{\"type\":1,\"invocationId\":\"1\",\"target\":\"Echo\",\"arguments\":[1]}\x1e";
        socket.write_all(&frame::from_client(call))?;
        let (answer, rest) = connect::next_message(socket, std::mem::take(early), Hub::Json)?;
        *early = rest;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.contains("\"type\":3") && !answer.contains("\"error\""), "{answer}");
        Ok(())
    }

    /// Requests a path outside of any hub from the app server, over a new connection.
    fn pass_through(&self) -> Result<()> {
        let mut socket = connect::open(self.product.address())?;
        socket.write_all(b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).context("the rest of an answer")?;
        ensure!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        Ok(())
    }

    fn memory_kib(&self) -> Result<f64> {
        Ok(number(Memory::of(self.product.proxy_pid())?.anonymous_bytes) / KIBIBYTE)
    }
}

/// Duration of a step in microseconds.
fn timed(step: impl FnOnce() -> Result<()>) -> Result<u64> {
    let begun = Instant::now();
    step()?;
    Ok(u64::try_from(begun.elapsed().as_micros())?)
}

#[expect(clippy::cast_precision_loss, reason = "what a machine does in some minutes needs less than 52 bits")]
fn number(of: u64) -> f64 {
    of as f64
}
