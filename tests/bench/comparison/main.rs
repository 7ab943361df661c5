#![forbid(unsafe_code)]
//! Trunkline compared with other servers: equal work from one generator, within minutes.
//!
//! ```text
//!   compare ── slices in sequence ──► generator ──► servers of one peer, new for each work
//!      │       round 1: a b c, round 2: b c a …   │            CPU time and memory of each of them
//!      └──◄── target/bench/compare/PEER-ROUND.json ┘
//!      └────► tables and a picture: medians over the rounds
//! ```
//!
//! **Work.** Deliveries: one client publishes a text, everyone receives it, and each byte is checked; the next text is
//! sent after all have received it, so no two share a write. Echoes: each client sends the next request when it is
//! answered. Connects: TCP, upgrade, and the handshake of the peer's protocol; then the client disconnects. Idle
//! connections: memory of the servers per connection. A lost, duplicated or reordered message ends the run.
//!
//! **Measurements.** CPU time of all processes of a peer, measured by the scheduler and read while they sleep; each may
//! use all cores. On loopback it includes the receiver's half of TCP, equally for all. The generator is a single
//! thread, with its CPU time shown separately.
//!
//! **Validity.** Peers differ in function: a SignalR hub dispatches calls, a plain fan-out copies bytes, and a single
//! process can't survive its own failure. The page with the results explains the differences.
//!
//! | module | contents |
//! |---|---|
//! | [`dialect`] | client protocols of the peers |
//! | [`peer`] | the compared products |
//! | [`certificate`] | certificate of servers with TLS, and sessions of their clients |
//! | [`service`], [`fan_out`] | servers of others, and the plain axum server |
//! | [`servers`] | the servers of a peer |
//! | [`crowds`] | the clients of each kind |
//! | [`mod@slice`] | one peer in one round |
//! | [`results`] | result files |
//! | [`figures`] | medians |
//! | [`table`], [`picture`] | output |

mod certificate;
mod crowds;
mod dialect;
mod fan_out;
mod figures;
mod peer;
mod picture;
mod results;
mod servers;
mod service;
mod slice;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use trunkline_bench::child::Speaker;
use trunkline_bench::rounds::in_turn;
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;
use trunkline_tests::harness::dotnet::DotNet;

use fan_out::FanOutArguments;
use figures::{Figures, Work};
use peer::Peer;
use results::{ROUNDS_MAX, Results};
use service::{NO_CENTRIFUGE, NO_DOTNET};
use slice::{Settings, Slice, SliceArguments};

const PICTURE: &str = "comparison.svg";
const PAGE: &str = "comparison.md";

/// Trunkline beside other servers: the same work, by the same generator, in the same minutes.
#[derive(Debug, Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    arguments: Arguments,
}

/// Further processes of a run, also from this program.
#[derive(Debug, Subcommand)]
enum Role {
    /// Process for one peer in one round.
    #[command(hide = true)]
    Slice(SliceArguments),
    /// Process of the plain fan-out.
    #[command(hide = true)]
    FanOut(FanOutArguments),
}

/// Arguments of a comparison.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// Peers to measure; by default all except .NET, which takes longer to warm up, and TLS
    #[arg(value_name = "NAME")]
    peers: Vec<Peer>,
    /// Rounds: each measures every peer once, in rotating order
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u32,
    #[command(flatten)]
    settings: Settings,
    /// Folder of the slices; existing ones are not measured again
    #[arg(long, value_name = "FOLDER", default_value = "target/bench/compare")]
    results: PathBuf,
    /// Also writes tables and picture to the page in this folder
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Cli { role, arguments } = Cli::parse();
    let done = match role {
        Some(Role::Slice(arguments)) => slice::run(&arguments),
        Some(Role::FanOut(arguments)) => fan_out::run(&arguments),
        None => compare(&arguments),
    };
    command::finish("compare", done)
}

fn compare(arguments: &Arguments) -> Result<()> {
    command::warn_of_debug_build("compare");
    let Arguments { peers, rounds, settings, results, docs } = arguments;
    let results = Results::open(results)?;
    let peers = wanted(peers)?;
    for round in 1..=*rounds {
        for peer in in_turn(Peer::ALL, round) {
            if peers.contains(&peer) && results.find(peer, round, settings)?.is_none() {
                let slice =
                    measure(peer, round, settings).with_context(|| format!("{}, round {round}", peer.name()))?;
                print_line(&line(&slice));
                results.keep(&slice)?;
            }
        }
    }
    let all = Figures::of_all(&results.all(settings)?)?;
    let (tables, picture) = (table::tables(&all), picture::picture(&all));
    print_line(&format!("\n{tables}"));
    for warning in busy_generators(&all) {
        print_line(&warning);
    }
    fs::write(arguments.results.join(PICTURE), &picture).context("writing the picture")?;
    docs.as_deref().map_or(Ok(()), |docs| publish(docs, &tables, &picture))
}

/// Named peers, or all except the slow ones; peers that can't run on this machine are skipped with a note.
fn wanted(named: &[Peer]) -> Result<Vec<Peer>> {
    let fast = Peer::ALL.into_iter().filter(|peer| !peer.is_extra());
    let mut peers = if named.is_empty() { fast.collect() } else { named.to_vec() };
    if peers.iter().any(|peer| peer.is_dotnet()) && DotNet::find()?.is_none() {
        peers.retain(|peer| !peer.is_dotnet());
        print_line(&format!("Rows of .NET are left out: {NO_DOTNET}"));
    }
    if peers.contains(&Peer::Centrifuge) && !service::centrifuge()?.is_file() {
        peers.retain(|peer| *peer != Peer::Centrifuge);
        print_line(&format!("Centrifuge is left out: {NO_CENTRIFUGE}"));
    }
    Ok(peers)
}

/// Measures a slice in a separate process, to obtain the generator's CPU time.
fn measure(peer: Peer, round: u32, settings: &Settings) -> Result<Slice> {
    let typed = SliceArguments::typed(peer, round, settings);
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    Ok(serde_json::from_str(&Speaker::start("generator", &typed)?.ask("")?)?)
}

/// Formats a slice for immediate output.
fn line(slice: &Slice) -> String {
    let works = Work::ALL.map(|work| {
        let window = work.of(slice)?;
        let per_cpu_second = window.units as f64 * 1e9 / window.total_cpu_ns() as f64;
        let generator = window.generator_cpu_ns as f64 / window.total_cpu_ns() as f64;
        Some(format!("{} {}/CPU-s (generator {generator:.2})", table::thousands(per_cpu_second), work.name()))
    });
    let idle = slice.idle.bytes.values().sum::<i64>() / i64::from(slice.idle.clients);
    let works: Vec<String> = works.into_iter().flatten().collect();
    format!("round {}, {:<15} {}, {idle} bytes per idle connection", slice.round, slice.peer.name(), works.join(", "))
}

/// Warnings about rounds with a generator as busy as the servers.
fn busy_generators(all: &[Figures]) -> impl Iterator<Item = String> {
    let works = all.iter().flat_map(|figures| Work::ALL.map(|work| (figures, work)));
    works.filter_map(|(figures, work)| {
        let rounds = figures.work(work)?.rounds_of_busy_generator;
        let (peer, work) = (figures.peer.name(), work.name());
        (rounds > 0)
            .then(|| format!("! {peer}, {work}: the generator used as much CPU time as the peer in {rounds} rounds"))
    })
}

fn publish(docs: &Path, tables: &str, picture: &str) -> Result<()> {
    let path = docs.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let page = table::into_page(&page, tables).with_context(|| path.display().to_string())?;
    fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    fs::write(docs.join(PICTURE), picture).with_context(|| format!("writing {PICTURE}"))
}
