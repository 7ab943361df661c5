#![forbid(unsafe_code)]
//! Memory after a storm: memory that a proxy keeps after rounds of connects and disconnects.
//!
//! ```text
//!   before ─► 15 000 connect, stay, leave ─► again … until 100 000 have ─► 5 s, 10 s, 30 s after the last has left
//! ```
//!
//! Each round checks that the proxy has opened a connection for every client, and that neither proxy nor app server has
//! any when all have left. Memory is the unshared heap and stack memory of proxy and app server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use serde::Serialize;
use trunkline_bench::product::Product;
use trunkline_bench::spread::Spread;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::memory::Memory;
use trunkline_generator::origin::Origins;
use trunkline_generator::residents::Residents;
use trunkline_generator::visitors::Arrivals;
use trunkline_generator::welcome::HubWelcome;
use trunkline_generator::workload::settle;
use trunkline_generator::{connect, upgrade};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

const MEBIBYTE: f64 = 1_048_576.0;

/// Time limit for a server to release the connections of disconnected clients.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Memory that a proxy keeps after 100 000 clients have connected and disconnected, 15 000 at a time.
#[derive(Debug, Parser, Serialize)]
#[command(name = "storm_memory")]
struct Settings {
    /// Number of concurrent clients
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    clients: u32,
    /// Total number of connects; the last round has the rest
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connects: u32,
    /// Number of concurrent connects
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    under_way: u32,
    /// Seconds after the last client has left at which memory is read. Close causes are kept for 600
    #[arg(long, value_name = "S,...", value_delimiter = ',', default_value = "5,10,30")]
    after: Vec<u64>,
    /// Threads of the proxy that serve clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<PathBuf>,
}

/// Memory of both processes at one moment.
#[derive(Debug, Clone, Serialize)]
struct Moment {
    name: String,
    proxy_mib: f64,
    app_mib: f64,
    /// Memory of the proxy divided by its memory before the first client.
    proxy_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    /// Memory of the proxy before the first client divided by its memory at the end; larger is better.
    ratio: Spread,
    moments: Vec<Moment>,
}

/// Hub clients, each with its own port.
struct StormArrivals {
    address: std::net::SocketAddr,
    upgrade: Vec<u8>,
    origins: Origins,
}

impl Arrivals for StormArrivals {
    type Welcome = HubWelcome;

    fn open(&mut self, _place: usize) -> Result<std::net::TcpStream> {
        self.origins.connect(self.address)
    }

    fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    fn welcome(&self) -> HubWelcome {
        HubWelcome::new(Hub::Json)
    }
}

fn main() -> ExitCode {
    command::finish("storm_memory", run(Settings::parse()))
}

fn run(settings: Settings) -> Result<()> {
    command::warn_of_debug_build("storm_memory");
    let product = Product::start(settings.shards)?;
    let upgrade = upgrade::request("localhost", "/bench", "").into_bytes();
    let arrivals = StormArrivals { address: product.address(), upgrade, origins: Origins::default() };
    // A first client, to exclude one-time costs from the storm.
    drop(connect::to_hub(product.address(), "/bench", "")?);
    until_all_have_left(&product)?;
    let opened_before = opened(&product)?;
    let (clients, under_way) = (settings.clients as usize, settings.under_way as usize);
    let mut crowd = Residents::new(clients, under_way, Hub::Json, arrivals)?;
    print_line(&format!(
        "{} connects, {clients} clients at once; {under_way} under way; memory of heap and stacks\n\n{:<22} {:>10} {:>8} {:>10}",
        settings.connects, "", "proxy MiB", "ratio", "app MiB"
    ));
    let mut moments = Vec::new();
    note(&product, "before", &mut moments)?;
    let mut connected = 0;
    while connected < settings.connects {
        let count = settings.clients.min(settings.connects - connected);
        crowd.fill(count as usize)?;
        settle(&mut crowd)?;
        connected += count;
        let came = opened(&product)? - opened_before;
        ensure!(came == f64::from(connected), "the proxy has opened {came} connections, and {connected} clients came");
        ensure!(product.app_connections()? == f64::from(count), "the app server does not know {count} clients");
        note(&product, &format!("with all, of {connected}"), &mut moments)?;
        crowd.leave();
        until_all_have_left(&product)?;
    }
    let left = Instant::now();
    for &seconds in &settings.after {
        // sleep: memory is returned over time, without a notification
        sleep(Duration::from_secs(seconds).saturating_sub(left.elapsed()));
        note(&product, &format!("{seconds} s after"), &mut moments)?;
    }
    let json = settings.json.clone();
    let ratio = Spread::of(moments.last().map(|moment| 1.0 / moment.proxy_ratio))?;
    command::write_json(&Report { settings, ratio, moments }, json.as_deref())
}

/// Reads and prints the current memory.
fn note(product: &Product, name: &str, moments: &mut Vec<Moment>) -> Result<()> {
    let mib = |pid| -> Result<f64> { Ok(Memory::of(pid)?.anonymous_bytes as f64 / MEBIBYTE) };
    let (proxy_mib, app_mib) = (mib(product.proxy_pid())?, mib(product.app_pid())?);
    let proxy_ratio = proxy_mib / moments.first().map_or(proxy_mib, |before| before.proxy_mib);
    print_line(&format!("{name:<22} {proxy_mib:>10.1} {proxy_ratio:>8.2} {app_mib:>10.1}"));
    moments.push(Moment { name: name.into(), proxy_mib, app_mib, proxy_ratio });
    Ok(())
}

fn opened(product: &Product) -> Result<f64> {
    Ok(product.proxy_metrics()?.sum("trunkline_client_connections_opened_total", &[]))
}

fn until_all_have_left(product: &Product) -> Result<()> {
    let started = Instant::now();
    loop {
        let at_proxy = product.proxy_metrics()?.sum("trunkline_client_connections", &[]);
        let at_app = product.app_connections()?;
        if at_proxy + at_app == 0.0 {
            return Ok(());
        }
        ensure!(started.elapsed() < LEAVE_TIMEOUT, "{at_proxy} clients are at the proxy, {at_app} at the app server");
        // sleep: interval for polling the counters
        sleep(LOOK_AGAIN);
    }
}
