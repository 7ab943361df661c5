//! The generator: a process that starts one server, is all its clients, gives it work, and counts what comes of it.
//!
//! ```text
//!  "5000\n" ──► warm up ─► CPU time ─► work for 5 s, until all of it is done ─► CPU time ──► {"units":…}
//! ```
//!
//! It never waits in epoll, it naps and polls: [`trunkline_generator::crowd`].

mod burst_publisher;
mod bystanders;
mod connect;
mod hub_crowds;
mod left_out;

use std::io::{self, BufRead};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::play::{Play, settle};
use trunkline_tests::bench::child::{READY, say};

use crate::arguments::{At, CrowdArguments};
use crate::server::Server;
use crate::stalled::Stalled;
use crate::work::Work;

use bystanders::Bystanders;
use hub_crowds::{callers, idlers, visitors};

pub(crate) use bystanders::{BystanderArguments, stand_by};

/// Warm-up: enough for caches and buffers to settle, short beside a window.
const WARM_UP: Duration = Duration::from_millis(300);

/// Figures of one window.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Deliveries, round trips or connects: each was looked at.
    pub(crate) units: u64,
    /// CPU time of the server.
    pub(crate) cpu_ns: u64,
    /// CPU time of the app server behind it, if there is one.
    pub(crate) app_cpu_ns: u64,
    /// CPU time of this generator.
    pub(crate) generator_cpu_ns: u64,
    /// CPU time of the whole machine's `ksoftirqd`, which is in none of these.
    pub(crate) softirq_cpu_ns: u64,
    /// Wall time of the window.
    pub(crate) wall_ns: u64,
    /// Time from the asking within which half of the units were done.
    pub(crate) p50_us: u64,
    /// Time from the asking within which 99 of 100 units were done, as the naps between two looks allow to tell.
    pub(crate) p99_us: u64,
    /// Memory of the server at the end.
    pub(crate) memory_bytes: u64,
    /// Memory of the server before the first client came.
    pub(crate) alone_bytes: u64,
}

/// Starts the server, connects, then measures a window for each line of input, which tells its milliseconds.
///
/// Ends with its input, and the server with it: so nothing is left behind however the benchmark ends.
pub(crate) fn run(arguments: &CrowdArguments) -> Result<()> {
    let server = match arguments.at {
        At::Floor => Server::floor(arguments.work, arguments.payload)?,
        At::Proxy => Server::proxies(arguments.proxies, arguments.shards, arguments.links)?,
    };
    let alone_bytes = server.memory_bytes()?;
    let mut play: Box<dyn Play> = match arguments.work {
        Work::Broadcast => Box::new(burst_publisher::receivers(&server, arguments)?),
        Work::Echo => Box::new(callers(&server, arguments)?),
        Work::Idle => Box::new(idlers(arguments.at, server.address(), arguments.clients)?),
        Work::Connect => Box::new(visitors(&server, arguments)?),
    };
    // Both held to the end.
    let _idle = (arguments.idle > 0).then(|| Bystanders::start(server.address(), arguments.idle)).transpose()?;
    let _stalled = (arguments.stalled > 0).then(|| Stalled::start(server.address(), arguments.stalled)).transpose()?;
    let (asking, asked) = mpsc::channel();
    thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| asking.send(line)));
    say(READY);
    loop {
        match asked.recv_timeout(play.rest()?) {
            Ok(line) => {
                let window = measure(&mut *play, Duration::from_millis(line.parse()?), &server)?;
                say(&serde_json::to_string(&Window { alone_bytes, ..window })?);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn measure(play: &mut dyn Play, length: Duration, server: &Server) -> Result<Window> {
    play.run_for(WARM_UP)?;
    settle(play)?;
    let app = || server.app_pid().map(CpuTime::of).transpose();
    let before = (CpuTime::of_all(&server.pids())?, app()?, CpuTime::of(std::process::id())?, CpuTime::of_softirqs()?);
    let started = Instant::now();
    let done = play.run_for(length)?;
    let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
    let generator_cpu = CpuTime::of(std::process::id())?;
    settle(play)?;
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
        alone_bytes: 0,
    })
}
