//! Slice: one peer in one round, with all kinds of work. Each kind has new servers.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use trunkline_bench::child::READY;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::memory::Memory;
use trunkline_tests::harness::command::print_line;

use trunkline_generator::workload::{Workload, settle};

use crate::crowds;
use crate::peer::Peer;
use crate::servers::Servers;

/// Wait until the servers have freed memory used for connecting clients.
const SETTLE_IDLE: Duration = Duration::from_secs(2);

/// Clients connected before the idle ones, to exclude the costs of the first clients.
const BEFORE_IDLE: usize = 200;

/// Settings of a run, equal for all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Length of each window of deliveries, echoes and connects
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub(crate) seconds: u32,
    /// Clients that receive each message
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    pub(crate) receivers: u32,
    /// Clients that request echoes, each again when it is answered
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    pub(crate) callers: u32,
    /// Number of concurrent connects
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) visitors: u32,
    /// Number of idle clients
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=7_500))]
    pub(crate) idle: u32,
    /// Size of the text in bytes, without framing
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=16_384))]
    pub(crate) payload: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) peer: Peer,
    pub(crate) round: u32,
    pub(crate) settings: Settings,
    pub(crate) deliveries: Window,
    /// `None` if the peer has no answers.
    pub(crate) echoes: Option<Window>,
    pub(crate) connects: Window,
    /// Connects by resuming the TLS session of an earlier connect; `None` without TLS.
    #[serde(default)]
    pub(crate) resumed: Option<Window>,
    pub(crate) idle: Idle,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Checked deliveries, echoes or connects.
    pub(crate) units: u64,
    /// CPU time of each process of the peer.
    pub(crate) cpu_ns: BTreeMap<String, u64>,
    pub(crate) generator_cpu_ns: u64,
    /// CPU time of the machine's `ksoftirqd`, not included in the other values.
    pub(crate) softirq_cpu_ns: u64,
    pub(crate) wall_ns: u64,
    /// Median latency, with the precision of the naps between two polls.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) clients: u32,
    /// Memory of each process of the peer for them.
    pub(crate) bytes: BTreeMap<String, i64>,
}

impl Slice {
    /// Measures the slice, announcing each step.
    pub(crate) fn measure(peer: Peer, round: u32, settings: Settings) -> Result<Self> {
        let Settings { receivers, callers, visitors, payload, .. } = settings;
        let (dialect, payload) = (peer.dialect(), payload as usize);
        let length = Duration::from_secs(settings.seconds.into());
        let deliveries = {
            let servers = Servers::start(peer)?;
            let mut receivers = crowds::receivers(&servers, dialect, receivers as usize, payload)?;
            window(&mut receivers, peer.warm_up(), length, &servers).context("deliveries")?
        };
        let echoes = {
            let servers = Servers::start(peer)?;
            let callers = crowds::callers(&servers, dialect, callers as usize, payload)?;
            let window = callers.map(|mut callers| window(&mut callers, peer.warm_up(), length, &servers)).transpose();
            window.context("echoes")?
        };
        let connects = {
            let servers = Servers::start(peer)?;
            let mut visitors = crowds::visitors(&servers, dialect, visitors as usize)?;
            window(&mut visitors, peer.warm_up(), length, &servers).context("connects")?
        };
        let resumed = {
            let servers = peer.has_tls().then(|| Servers::start(peer)).transpose()?;
            let resumed = servers.as_ref().map(|servers| {
                let visitors = crowds::resuming_visitors(servers, dialect, visitors as usize)?;
                visitors.map(|mut visitors| window(&mut visitors, peer.warm_up(), length, servers)).transpose()
            });
            resumed.transpose().context("resumed connects")?.flatten()
        };
        let idle = idle(peer, settings.idle).context("idle clients")?;
        Ok(Self { peer, round, settings, deliveries, echoes, connects, resumed, idle })
    }
}

fn window(run_test: &mut dyn Workload, warm_up: Duration, length: Duration, servers: &Servers) -> Result<Window> {
    run_test.run_for(warm_up)?;
    settle(run_test)?;
    let before = (cpu_times(servers)?, CpuTime::of(std::process::id())?, CpuTime::of_softirqs()?);
    let started = Instant::now();
    let done = run_test.run_for(length)?;
    let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
    let generator_cpu = CpuTime::of(std::process::id())?;
    settle(run_test)?;
    let used =
        cpu_times(servers)?.into_iter().zip(&before.0).map(|((name, now), (_, before))| (name, now.since(before)));
    let window = Window {
        units: done.units,
        cpu_ns: used.collect(),
        generator_cpu_ns: generator_cpu.since(&before.1),
        softirq_cpu_ns: CpuTime::of_softirqs()?.since(&before.2),
        wall_ns,
        p50_us: done.percentile(50),
        p99_us: done.percentile(99),
    };
    ensure!(
        window.units > 0 && window.total_cpu_ns() > 0,
        "the window was too short to measure anything: give more --seconds"
    );
    Ok(window)
}

fn cpu_times(servers: &Servers) -> Result<Vec<(String, CpuTime)>> {
    servers.processes.iter().map(|(name, id)| Ok((name.clone(), CpuTime::of(*id)?))).collect()
}

fn idle(peer: Peer, clients: u32) -> Result<Idle> {
    let servers = Servers::start(peer)?;
    let mut first = crowds::idlers(&servers, peer.dialect(), BEFORE_IDLE)?;
    sleep(SETTLE_IDLE);
    let before = memory(&servers)?;
    let mut crowd = crowds::idlers(&servers, peer.dialect(), clients as usize)?;
    sleep(SETTLE_IDLE);
    let after = memory(&servers)?;
    first.inspect()?;
    crowd.inspect()?;
    let gained = after.into_iter().zip(before).map(|((name, after), (_, before))| (name, after - before));
    Ok(Idle { clients, bytes: gained.collect() })
}

fn memory(servers: &Servers) -> Result<Vec<(String, i64)>> {
    let of = |id: u32| -> Result<i64> { Ok(i64::try_from(Memory::of(id)?.proportional_bytes)?) };
    servers.processes.iter().map(|(name, id)| Ok((name.clone(), of(*id)?))).collect()
}

impl Window {
    pub(crate) fn total_cpu_ns(&self) -> u64 {
        self.cpu_ns.values().sum()
    }
}

/// Arguments of one slice.
#[derive(Debug, clap::Args)]
pub(crate) struct SliceArguments {
    /// Peer to be measured
    #[arg(long)]
    peer: Peer,
    /// Number of the round
    #[arg(long)]
    round: u32,
    #[command(flatten)]
    settings: Settings,
}

impl SliceArguments {
    pub(crate) fn typed(peer: Peer, round: u32, settings: &Settings) -> Vec<String> {
        let Settings { seconds, receivers, callers, visitors, idle, payload } = settings;
        let numbers = [
            ("--round", &round),
            ("--seconds", seconds),
            ("--receivers", receivers),
            ("--callers", callers),
            ("--visitors", visitors),
            ("--idle", idle),
            ("--payload", payload),
        ];
        let numbers = numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]);
        ["slice", "--peer", peer.name()].into_iter().map(str::to_owned).chain(numbers).collect()
    }
}

/// Measures the slice for each input line, and prints the result. Ends with its input, along with the servers.
pub(crate) fn run(arguments: &SliceArguments) -> Result<()> {
    let SliceArguments { peer, round, settings } = *arguments;
    print_line(READY);
    for line in io::stdin().lock().lines() {
        line?;
        print_line(&serde_json::to_string(&Slice::measure(peer, round, settings)?)?);
    }
    Ok(())
}
