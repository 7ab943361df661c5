//! HAProxy and nginx with the configuration files of `deploy/`, adapted to loopback.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::fleet::Proxy;
use crate::harness::metrics::Metrics;
use crate::harness::process::Process;
use crate::harness::scenario::{Fixture, until};
use crate::harness::sockets::free_address;

/// Debian's folder of servers, which may be missing in `PATH`.
const PROGRAMS: &str = "/usr/sbin";

/// Request log of nginx in the test's folder.
const ACCESS_LOG: &str = "access.log";

/// Load balancer configured in `deploy/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalancerProduct {
    /// HAProxy with the shipped `haproxy.cfg`.
    HaProxy,
    /// nginx with the shipped `nginx.conf`.
    Nginx,
}

impl BalancerProduct {
    /// Both of the load balancers.
    pub const ALL: [BalancerProduct; 2] = [BalancerProduct::HaProxy, BalancerProduct::Nginx];

    fn name(self) -> &'static str {
        match self {
            BalancerProduct::HaProxy => "haproxy",
            BalancerProduct::Nginx => "nginx",
        }
    }

    fn file(self) -> &'static str {
        match self {
            BalancerProduct::HaProxy => "deploy/haproxy/haproxy.cfg",
            BalancerProduct::Nginx => "deploy/nginx/nginx.conf",
        }
    }
}

/// Shipped configuration file with changes.
#[derive(Debug)]
#[must_use]
pub struct Shipped {
    product: BalancerProduct,
    text: String,
}

impl Shipped {
    /// Reads the shipped file.
    pub fn read(product: BalancerProduct) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(product.file());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { product, text })
    }

    /// Replaces all occurrences of a text in the file.
    pub fn with(mut self, text: &str, instead: &str) -> Result<Self> {
        ensure!(self.text.contains(text), "{} has no {text:?}", self.product.file());
        self.text = self.text.replace(text, instead);
        Ok(self)
    }

    /// Starts the balancer in front of two or three nodes (HAProxy: any number), and waits until it listens.
    pub async fn start<'a>(
        self,
        fixture: &Fixture,
        nodes: impl IntoIterator<Item = &'a Proxy>,
    ) -> Result<LoadBalancer> {
        let (product, address, statistics) = (self.product, free_address()?, free_address()?);
        let nodes: Vec<&Proxy> = nodes.into_iter().collect();
        let placed = self.place(fixture, &nodes, &address, &statistics)?;
        let path = fixture.folder().join(product.name()).with_extension("conf");
        std::fs::write(&path, placed.text)?;
        let mut command = Command::new(Path::new(PROGRAMS).join(product.name()));
        match product {
            BalancerProduct::HaProxy => command.arg("-db").arg("-f").arg(&path),
            BalancerProduct::Nginx => command.arg("-e").arg("stderr").arg("-c").arg(&path),
        };
        let mut process = Process::start(fixture, product.name(), command)?;
        until(async || {
            ensure!(process.is_running(), "{}", process.log());
            Ok(TcpStream::connect(&address).await.ok())
        })
        .await?;
        let access_log = (product == BalancerProduct::Nginx).then(|| fixture.folder().join(ACCESS_LOG));
        Ok(LoadBalancer { process, address, statistics, access_log })
    }

    /// Adapts the file to loopback: its address, the nodes' addresses, and output files in the test's folder.
    fn place(self, fixture: &Fixture, nodes: &[&Proxy], address: &str, statistics: &str) -> Result<Self> {
        let mut placed = match self.product {
            BalancerProduct::HaProxy => self
                .with("bind :80", &format!("bind {address}"))?
                .with("bind 127.0.0.1:8404", &format!("bind {statistics}"))?
                .with(" port 8090", "")?,
            BalancerProduct::Nginx => {
                let folder = fixture.folder().display();
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let paths: String = paths.iter().map(|of| format!("{of}_temp_path {folder}/{of};\n")).collect();
                // A single process, because workers would outlive a killed master.
                let main = format!("daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n");
                self.with("worker_processes auto;", &main)?
                    .with("worker_connections 16384;", "worker_connections 8192;")?
                    .with("http {", &format!("http {{\n{paths}"))?
                    .with("/var/log/nginx/access.log", &format!("{folder}/{ACCESS_LOG}"))?
                    .with("listen 80;", &format!("listen {address};"))?
            }
        };
        placed = placed.with_nodes(nodes.len())?;
        for (number, node) in (1..).zip(nodes) {
            let name = format!("node-{number}:8080");
            let port = node.admin().rsplit_once(':').context("a port")?.1;
            let place = match placed.product {
                BalancerProduct::HaProxy => format!("{} port {port}", node.address()),
                BalancerProduct::Nginx => node.address().to_owned(),
            };
            placed = placed.with(&name, &place)?;
        }
        Ok(placed)
    }

    /// Adapts the list of three servers to the number of nodes.
    fn with_nodes(self, count: usize) -> Result<Self> {
        let is_last = |line: &&str| line.trim_start().starts_with("server node-3");
        let last: Vec<String> = self.text.lines().filter(is_last).map(|line| format!("{line}\n")).collect();
        ensure!(!last.is_empty(), "{} has no node-3", self.product.file());
        last.iter().try_fold(self, |placed, line| {
            let lines: String = (3..=count).map(|number| line.replace("node-3", &format!("node-{number}"))).collect();
            placed.with(line, &lines)
        })
    }
}

/// Running load balancer process.
#[derive(Debug)]
pub struct LoadBalancer {
    /// Process that runs it.
    pub process: Process,
    address: String,
    statistics: String,
    access_log: Option<PathBuf>,
}

impl LoadBalancer {
    /// Listen address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns its whole log.
    pub fn log(&self) -> Result<String> {
        let requests = self.access_log.as_ref().map(std::fs::read_to_string).transpose()?;
        Ok(self.process.log() + &requests.unwrap_or_default())
    }

    /// URL of a path for clients.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Whether HAProxy considers these nodes ready and down, respectively.
    pub async fn has_found(&self, ready: &[&str], down: &[&str]) -> Result<bool> {
        let metrics = Metrics::of(&self.statistics).await?;
        let says = |server: &str, name: &str, state: &str| {
            metrics.sum(name, &[("proxy", "trunkline"), ("server", server), ("state", state)]) == 1.0
        };
        // HAProxy initially assumes that all nodes are up, so a ready node also needs a passed check.
        let is_ready = |server: &str| {
            says(server, "haproxy_server_status", "UP") && says(server, "haproxy_server_check_status", "L7OK")
        };
        let is_down = |server: &str| says(server, "haproxy_server_status", "DOWN");
        Ok(ready.iter().all(|server| is_ready(server)) && down.iter().all(|server| is_down(server)))
    }

    /// Number of answers forwarded by HAProxy with a class of statuses ("2xx"). These counters are exact, unlike its
    /// log: its threads drop lines to avoid waiting for each other.
    pub async fn answers(&self, class: &str) -> Result<f64> {
        let metrics = Metrics::of(&self.statistics).await?;
        Ok(metrics.sum("haproxy_server_http_responses_total", &[("proxy", "trunkline"), ("code", class)]))
    }
}
