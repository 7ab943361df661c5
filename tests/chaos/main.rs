#![forbid(unsafe_code)]
//! Chaos test: drains, kills, freezes and disconnects real proxies and app servers, and counts effects on clients.
//!
//! ```text
//!  speakers ──calls──► proxies ══ relays that cut ══► app servers ──numbered messages──► all listeners
//!                         ▲ drained, killed, frozen        ▲ stopped, killed, frozen
//! ```
//!
//! Speakers have numbered messages sent to everyone, to groups and to single clients; all kinds share one sequence of
//! numbers, so listeners detect lost, duplicate and reordered messages. Listeners send numbers themselves and expect
//! them back.
//!
//! | module | contents |
//! |---|---|
//! | [`fault`] | faults, and what clients may notice of each |
//! | [`ledger`] | messages sent, and messages that each client should have received |
//! | [`tally`] | counts, and the table |
//! | [`world`] | shared state of a run |
//! | [`relay`] | relay between proxies and app servers |
//! | [`scene`] | processes, and how faults are injected |
//! | [`speaker`] | clients that speak, and fences |
//! | [`listener`] | clients that listen |
#![expect(clippy::indexing_slicing, reason = "numbers are taken modulo what there is; a test tool may panic anyway")]

mod fault;
mod ledger;
mod listener;
mod relay;
mod scene;
mod speaker;
mod tally;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;
use trunkline_tests::harness::fleet::POOL_SIZE;
use trunkline_tests::harness::scenario::Fixture;

use fault::{Fault, Times, each_once, mixed};
use scene::Scene;
use world::{Act, World};

/// Time within which all clients must recover, or the run fails.
const PATIENCE: Duration = Duration::from_secs(120);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Inject faults into a fleet and count what its clients notice.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Settings {
    /// Fault and how often to inject it, such as `kill-proxy=20`; repeatable, injected in turn. [default: each once]
    #[arg(long = "fault", value_name = "NAME=TIMES")]
    faults: Vec<Times>,
    /// Number of listening clients.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    clients: u32,
    /// Number of proxies in the fleet.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    proxies: u8,
    /// Number of app servers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    apps: u8,
    /// Number of speaking clients.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=100))]
    speakers: u8,
    /// Messages per second from each speaker.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Milliseconds between two numbers from a listener.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    echo_ms: u64,
    /// Milliseconds without faults after all clients have recovered.
    #[arg(long, default_value_t = 1000)]
    peace_ms: u64,
    /// `--drain-timeout` of proxies, in seconds.
    #[arg(long, default_value_t = 4)]
    drain_timeout: u64,
    /// Seconds without any app server.
    #[arg(long, default_value_t = 30)]
    no_app: u64,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return command::finish("chaos", Err(error.into())),
    };
    command::finish("chaos", runtime.block_on(run(&settings)))
}

async fn run(settings: &Settings) -> Result<()> {
    let fixture = Fixture::new()?;
    let (drain_timeout, no_app) = (Duration::from_secs(settings.drain_timeout), Duration::from_secs(settings.no_app));
    let (proxies, apps) = (usize::from(settings.proxies), usize::from(settings.apps));
    let mut scene = Scene::start(&fixture, proxies, apps, drain_timeout, no_app).await?;
    let addresses = scene.proxies.iter().map(|proxy| proxy.address().to_owned()).collect();
    let world = Arc::new(World::new(addresses, usize::try_from(settings.clients)?, apps * POOL_SIZE));
    let (mut listeners, mut speakers) = (JoinSet::new(), JoinSet::new());
    for number in 0..world.clients {
        listeners.spawn(listener::listen(world.clone(), number, Duration::from_millis(settings.echo_ms)));
    }
    all_here(&world, &fixture).await?;
    for number in 0..usize::from(settings.speakers) {
        speakers.spawn(speaker::speak(world.clone(), number, Duration::from_secs(1) / settings.rate));
    }
    let wanted = if settings.faults.is_empty() { each_once() } else { settings.faults.clone() };
    let peace = Duration::from_millis(settings.peace_ms);
    sleep(peace).await;
    for fault in mixed(&wanted) {
        make(&mut scene, &world, fault).await;
        all_here(&world, &fixture).await?;
        sleep(peace).await;
    }
    world.act.send_replace(Act::Quiet);
    let ending = async {
        while speakers.join_next().await.is_some() {}
        scene.linked().await?;
        speaker::broadcast_fences(&world).await?;
        while listeners.join_next().await.is_some() {}
        Ok(())
    };
    let ended: Result<()> = timeout(PATIENCE, ending).await.context("a fence did not reach all clients").flatten();
    if let Err(error) = ended {
        print_line(&format!("the end: {error:#}"));
        world.tally.problem();
    }
    print_line(world.tally.table().trim_end());
    if !world.tally.is_clean() {
        bail!("clients noticed more than they should: the logs are in {}", fixture.folder().display());
    }
    Ok(std::fs::remove_dir_all(fixture.folder())?)
}

async fn make(scene: &mut Scene<'_>, world: &World, fault: Fault) {
    if let Err(error) = scene.make(world, fault).await {
        print_line(&format!("{}: {error:#}", fault.name()));
        world.tally.problem();
    }
}

/// Waits until all clients are connected and have joined their groups.
async fn all_here(world: &World, fixture: &Fixture) -> Result<()> {
    let begun = Instant::now();
    loop {
        let here = world.tally.here.load(Ordering::SeqCst);
        if here == world.clients {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            print_line(world.tally.table().trim_end());
            bail!("of {} clients {here} are here; the logs are in {}", world.clients, fixture.folder().display());
        }
        sleep(LOOK_AGAIN).await;
    }
}
