//! All clients of one server: a process that starts the server, calls, counts, and reads the CPU time.
//!
//! ```text
//!  "50000\n" ──► a tenth, to warm up ─► CPU time ─► 50 000 calls, until all are answered ─► CPU time ──► {"calls":…}
//! ```
//!
//! Stops at the first unexpected answer.
//!
//! It naps and polls instead of waiting in epoll: on loopback a server pays for waking its receivers, and real clients
//! are on other machines. In return, answers are read in batches, so the next calls are also sent in batches.

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use trunkline_bench::child::{READY, Speaker};
use trunkline_bench::product::{self, Product};
use trunkline_generator::connect;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::crowd::{Crowd, NAP};
use trunkline_tests::harness::command::print_line;

use crate::caller::Caller;

/// Time without any answer after which calls count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ratio of calls in a window to calls in the warm-up.
const WARM_UP_SHARE: u64 = 10;

/// Wait until the server sleeps, as required for reading its CPU time, and until unexpected answers would have arrived.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum At {
    /// Process of the bare handler.
    Bare,
    /// App server `bench` behind a proxy.
    App,
}

/// Arguments of the callers.
#[derive(Debug, clap::Args)]
pub(crate) struct CallersArguments {
    /// Server that is called
    #[arg(long)]
    at: At,
    /// Threads of the proxy that serve clients
    #[arg(long)]
    shards: u16,
    /// Number of client connections
    #[arg(long)]
    clients: usize,
    /// Pending calls of each client
    #[arg(long)]
    outstanding: u64,
    /// Size of the echoed text in bytes
    #[arg(long)]
    payload: usize,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) calls: u64,
    /// CPU time of the measured server.
    pub(crate) cpu_ns: u64,
    pub(crate) proxy_cpu_ns: u64,
    pub(crate) callers_cpu_ns: u64,
    /// CPU time of the machine's `ksoftirqd`, not included in the other values.
    pub(crate) softirq_cpu_ns: u64,
    pub(crate) wall_ns: u64,
}

enum Server {
    Bare(Speaker, SocketAddr),
    App(Product),
}

struct Callers {
    server: Server,
    crowd: Crowd<Caller>,
    outstanding: u64,
}

struct CpuReading {
    server: CpuTime,
    proxy: CpuTime,
    callers: CpuTime,
    softirqs: CpuTime,
}

/// Starts the server, connects, then measures a window for each input line, which contains the number of calls.
///
/// Ends with its input, along with the server, so that no process remains however the benchmark ends.
pub(crate) fn run(arguments: &CallersArguments) -> Result<()> {
    let mut callers = Callers::gather(arguments)?;
    print_line(READY);
    for line in io::stdin().lock().lines() {
        let window = callers.measure(line?.parse()?)?;
        print_line(&serde_json::to_string(&window)?);
    }
    Ok(())
}

impl Callers {
    fn gather(arguments: &CallersArguments) -> Result<Self> {
        let server = Server::start(arguments)?;
        let address = server.address();
        let crowd = Caller::gather(arguments.clients, arguments.payload, || connect::to_hub(address, "/bench", ""))?;
        Ok(Self { server, crowd, outstanding: arguments.outstanding })
    }

    fn measure(&mut self, calls: u64) -> Result<Window> {
        self.call(calls / WARM_UP_SHARE)?;
        self.settle()?;
        let before = CpuReading::of(&self.server)?;
        let started = Instant::now();
        self.call(calls)?;
        let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
        self.settle()?;
        let after = CpuReading::of(&self.server)?;
        Ok(Window {
            calls,
            cpu_ns: after.server.since(&before.server),
            proxy_cpu_ns: after.proxy.since(&before.proxy),
            callers_cpu_ns: after.callers.since(&before.callers),
            softirq_cpu_ns: after.softirqs.since(&before.softirqs),
            wall_ns,
        })
    }

    fn call(&mut self, calls: u64) -> Result<()> {
        let mut to_ask = calls;
        for caller in &mut self.crowd.clients {
            let first = to_ask.min(self.outstanding);
            caller.ask(first)?;
            to_ask -= first;
        }
        let mut missing = calls;
        let mut heard = Instant::now();
        while missing > 0 {
            sleep(NAP);
            let answered = self.take(&mut to_ask)?;
            missing = missing.checked_sub(answered).context("more answers than calls")?;
            if answered > 0 {
                heard = Instant::now();
            }
            ensure!(heard.elapsed() < PATIENCE, "{missing} of {calls} calls wait for an answer in vain");
        }
        Ok(())
    }

    /// Waits until the server sleeps, and checks that only pings have arrived.
    fn settle(&mut self) -> Result<()> {
        sleep(SETTLE);
        self.take(&mut 0).context("after all calls")?;
        Ok(())
    }

    /// Reads available data and sends the next calls of answered clients. Returns the number of answered calls.
    fn take(&mut self, to_ask: &mut u64) -> Result<u64> {
        let mut answered = 0;
        self.crowd.each_ready(|caller, scratch| {
            let came = caller.read(scratch)?;
            let again = came.min(*to_ask);
            *to_ask -= again;
            answered += came;
            caller.ask(again)
        })?;
        Ok(answered)
    }
}

impl Server {
    fn start(arguments: &CallersArguments) -> Result<Self> {
        if arguments.at == At::App {
            return Ok(Self::App(Product::start(arguments.shards)?));
        }
        let address = product::address()?;
        let bare = Speaker::start("bare handler", &["bare", "--listen", &address.to_string()])?;
        Ok(Self::Bare(bare, address))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Bare(_, address) => *address,
            Self::App(product) => product.address(),
        }
    }
}

impl CpuReading {
    fn of(server: &Server) -> Result<Self> {
        let (server, proxy) = match server {
            Server::Bare(bare, _) => (CpuTime::of(bare.id())?, CpuTime::default()),
            Server::App(product) => (CpuTime::of(product.app_pid())?, CpuTime::of(product.proxy_pid())?),
        };
        Ok(Self { server, proxy, callers: CpuTime::of(std::process::id())?, softirqs: CpuTime::of_softirqs()? })
    }
}
