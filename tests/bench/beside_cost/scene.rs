//! Proxy, its crowd and the companion, and a window of them.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use trunkline_bench::child::ChildProcess;
use trunkline_bench::product::{Product, Wanted, program};
use trunkline_bench::single_caller::SingleCaller;
use trunkline_generator::cpu::CpuTime;

use crate::companion::Companion;
use crate::mirror::Mirror;
use crate::new_server::NewServer;
use crate::page::Page;
use crate::settings::{Beside, Settings};
use crate::tracer::Tracer;
use crate::window::{Part, Window};

const SETTLE: Duration = Duration::from_millis(500);

/// Wait before the first window, until all rooms have sent messages.
const WARM_UP: Duration = Duration::from_secs(5);

const CONNECTS_PER_SECOND: u32 = 500;

/// Members per room, for the wanted delivery rate: a client sends about 0.0125 messages per second on average.
const MEMBERS_OF_A_ROOM: u32 = 40;

const PROBE_BYTES: usize = 128;

/// Pause of the probe after an answer.
const PROBE_PAUSE: Duration = Duration::from_millis(1);

/// Time limit of a round in addition to its windows, with a large margin.
const ROUND_SPARE_S: u32 = 180;

pub(crate) struct Scene {
    // Fields are dropped in this order: the crowd before the proxy.
    _crowd: ChildProcess,
    product: Product,
    companion: Box<dyn Companion>,
    length: Duration,
}

impl Scene {
    /// Starts all processes and waits until the crowd is connected and active.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let companion: Box<dyn Companion> = match settings.beside {
            Beside::Page => Box::new(Page::default()),
            Beside::Trace => Box::new(Tracer::of(&settings.traced_method)),
            Beside::Mirror => Box::new(Mirror::start()?),
            Beside::Rebalance => Box::new(NewServer::new(settings.rebalance_rate)?),
        };
        let more = companion.proxy_arguments();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let product = Product::start_with(Wanted { shards: settings.shards, more: &more, ..Wanted::default() })?;
        let mut crowd = crowd(settings, &product)?;
        crowd_arrives(settings, &product, &mut crowd)?;
        sleep(WARM_UP);
        Ok(Self { _crowd: crowd, product, companion, length: Duration::from_secs(settings.seconds.into()) })
    }

    pub(crate) fn window(&mut self, part: Part) -> Result<Window> {
        if part != Part::With {
            return self.measured(part);
        }
        self.companion.come(&mut self.product)?;
        let window = self.measured(part)?;
        self.companion.is_there(&self.product)?;
        self.companion.go(&mut self.product)?;
        Ok(window)
    }

    fn measured(&self, part: Part) -> Result<Window> {
        let Self { product, companion, .. } = self;
        let mut probe = SingleCaller::connect(product.address(), PROBE_BYTES)?;
        probe.call_for(SETTLE, PROBE_PAUSE)?;
        let messages_before = messages(product)?;
        let events_before = companion.events(product)?;
        let before = CpuTime::of(product.proxy_pid())?;
        let done = probe.call_for(self.length, PROBE_PAUSE)?;
        let cpu_ns = CpuTime::of(product.proxy_pid())?.since(&before);
        let events = companion.events(product)? - events_before;
        let messages = messages(product)? - messages_before;
        ensure!(messages > 0.0, "nobody said anything");
        ensure!((events > 0) == (part == Part::With), "{events} events of the companion in a window {part:?}");
        let [p50_us, p99_us] = [50, 99].map(|percent| done.percentile(percent));
        Ok(Window { messages, cpu_ns, calls: done.units, p50_us, p99_us, events })
    }
}

fn crowd(settings: &Settings, product: &Product) -> Result<ChildProcess> {
    let rooms = (settings.clients / MEMBERS_OF_A_ROOM).max(1);
    let rampup_s = settings.clients.div_ceil(CONNECTS_PER_SECOND);
    let run_s = settings.pairs * (3 * settings.seconds + ROUND_SPARE_S);
    let mut load = Command::new(program("trunkline-load")?);
    load.args(["chat", "-s", &product.address().to_string(), "-i", "1000"]);
    for (flag, value) in [("-c", settings.clients), ("-g", rooms), ("-u", rampup_s), ("-r", run_s)] {
        load.args([flag, &value.to_string()]);
    }
    ChildProcess::start("load tester", &mut load)
}

fn crowd_arrives(settings: &Settings, product: &Product, crowd: &mut ChildProcess) -> Result<()> {
    let are_all_there = || {
        let metrics = product.proxy_metrics();
        metrics.is_ok_and(|metrics| metrics.sum("trunkline_client_connections", &[]) >= f64::from(settings.clients))
    };
    sleep(Duration::from_secs(u64::from(settings.clients.div_ceil(CONNECTS_PER_SECOND))));
    crowd.wait_until(are_all_there)
}

fn messages(product: &Product) -> Result<f64> {
    let metrics = product.proxy_metrics()?;
    Ok(["trunkline_deliveries_total", "trunkline_client_messages_total"]
        .iter()
        .map(|name| metrics.sum(name, &[]))
        .sum())
}
