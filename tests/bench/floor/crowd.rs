//! Generator: a process that starts one server, runs all its clients, applies the load, and counts the results.
//!
//! ```text
//!  "5000\n" ──► warm up ─► CPU time ─► work for 5 s, until all of it is done ─► CPU time ──► {"units":…}
//! ```
//!
//! It naps and polls instead of waiting in epoll: [`trunkline_generator::crowd`].

mod burst_publisher;
mod bystanders;
mod connect;
mod hub_crowds;
mod left_out;

use std::io::{self, BufRead};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use trunkline_bench::child::READY;
use trunkline_bench::cores;
use trunkline_bench::peak::Peak;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::workload::{Workload, settle};
use trunkline_tests::harness::command::print_line;

use crate::arguments::{At, CrowdArguments};
use crate::server::Server;
use crate::stalled::Stalled;
use crate::work::Work;

use bystanders::Bystanders;
use hub_crowds::{callers, idlers, residents, visitors};

pub(crate) use bystanders::{BystanderArguments, stand_by};

/// Warm-up of caches and buffers, short compared with a window.
const WARM_UP: Duration = Duration::from_millis(300);

/// Minimum payload for measuring the server's peak memory.
const HEAVY_MIN_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Checked deliveries, round trips or connects.
    pub(crate) units: u64,
    pub(crate) cpu_ns: u64,
    /// CPU time of the app server behind it, if any.
    pub(crate) app_cpu_ns: u64,
    pub(crate) generator_cpu_ns: u64,
    /// CPU time of the machine's `ksoftirqd`, not included in the other values.
    pub(crate) softirq_cpu_ns: u64,
    pub(crate) wall_ns: u64,
    pub(crate) p50_us: u64,
    /// 99th percentile of the latency, with the precision of the naps between two polls.
    pub(crate) p99_us: u64,
    /// Memory of the server at the end.
    pub(crate) memory_bytes: u64,
    /// Memory of the server before the first client.
    pub(crate) alone_bytes: u64,
    /// Peak memory of the server within the window; measured only for large messages.
    pub(crate) peak_bytes: Option<u64>,
}

/// Starts the server, connects, then measures a window for each input line, which contains the length in milliseconds.
///
/// Ends with its input, along with the server, so that no process remains however the benchmark ends.
pub(crate) fn run(arguments: &CrowdArguments) -> Result<()> {
    let core = if arguments.pinned { Some(give_up_a_core()?) } else { None };
    let mut scene = Scene::begin(arguments, core)?;
    // Both are held until the end.
    let _idle = (arguments.idle > 0).then(|| Bystanders::start(scene.server.address(), arguments.idle)).transpose()?;
    let _stalled =
        (arguments.stalled > 0).then(|| Stalled::start(scene.server.address(), arguments.stalled)).transpose()?;
    let (asking, asked) = mpsc::channel();
    thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| asking.send(line)));
    print_line(READY);
    loop {
        match asked.recv_timeout(scene.workload.rest()?) {
            Ok(line) => {
                let window = scene.measure(Duration::from_millis(line.parse()?))?;
                if arguments.work == Work::Storm {
                    scene = scene.replace(arguments, core)?;
                }
                print_line(&serde_json::to_string(&window)?);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Binds this process, and so the app server that it starts, to its second core. Returns the first core, for the
/// measured server.
fn give_up_a_core() -> Result<u16> {
    let cores = cores::allowed()?;
    let &[first, second, ..] = cores.as_slice() else { bail!("--pinned needs two cores, and there is one") };
    cores::pin(std::process::id(), second)?;
    Ok(first)
}

/// Server with its clients. Clients end first, because each would notice the end of its server.
struct Scene {
    workload: Box<dyn Workload>,
    server: Server,
    alone_bytes: u64,
    /// Whether messages are large enough for measuring peak memory.
    is_heavy: bool,
}

impl Scene {
    /// Starts the server and connects the clients.
    fn begin(arguments: &CrowdArguments, core: Option<u16>) -> Result<Self> {
        let server = match arguments.at {
            At::Floor => Server::floor(arguments.work, arguments.payload)?,
            At::Proxy => Server::proxies(arguments)?,
        };
        core.map_or(Ok(()), |core| server.pin(core))?;
        let alone_bytes = server.memory_bytes()?;
        let workload: Box<dyn Workload> = match arguments.work {
            Work::Broadcast => Box::new(burst_publisher::receivers(&server, arguments)?),
            Work::Echo => Box::new(callers(&server, arguments)?),
            Work::Idle => Box::new(idlers(arguments.at, server.address(), arguments.clients)?),
            Work::Connect => Box::new(visitors(&server, arguments)?),
            Work::Storm => Box::new(residents(&server, arguments)?),
        };
        Ok(Self { workload, server, alone_bytes, is_heavy: arguments.payload >= HEAVY_MIN_BYTES })
    }

    /// Replaces clients and server with new ones without grown tables and mapped pages.
    fn replace(self, arguments: &CrowdArguments, core: Option<u16>) -> Result<Self> {
        drop(self);
        Self::begin(arguments, core)
    }

    fn measure(&mut self, length: Duration) -> Result<Window> {
        let Self { workload, server, alone_bytes, is_heavy } = self;
        workload.warm_up(WARM_UP)?;
        settle(&mut **workload)?;
        let app = || server.app_pid().map(CpuTime::of).transpose();
        let before =
            (CpuTime::of_all(&server.pids())?, app()?, CpuTime::of(std::process::id())?, CpuTime::of_softirqs()?);
        let peak = is_heavy.then(|| Peak::watch(server.pids()));
        let started = Instant::now();
        let done = workload.run_for(length)?;
        let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
        let generator_cpu = CpuTime::of(std::process::id())?;
        let peak_bytes = peak.map(Peak::end).transpose()?;
        settle(&mut **workload)?;
        Ok(Window {
            units: done.units,
            cpu_ns: CpuTime::of_all(&server.pids())?.since(&before.0),
            app_cpu_ns: app()?.zip(before.1).map_or(0, |(now, before)| now.since(&before)),
            generator_cpu_ns: generator_cpu.since(&before.2),
            softirq_cpu_ns: CpuTime::of_softirqs()?.since(&before.3),
            wall_ns,
            p50_us: done.percentile(50),
            p99_us: done.percentile(99),
            memory_bytes: server.memory_bytes()?,
            alone_bytes: *alone_bytes,
            peak_bytes,
        })
    }
}
