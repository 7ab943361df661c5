//! HAProxy and nginx with the configuration files that `deploy/` ships, put onto loopback.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::fleet::Proxy;
use crate::harness::metrics::Metrics;
use crate::harness::process::Process;
use crate::harness::scenario::{Stage, until};
use crate::harness::sockets::free_address;

/// Debian's folder of servers, which is not in every path.
const PROGRAMS: &str = "/usr/sbin";

/// File of nginx's log of requests, in the stage's folder.
const ACCESS_LOG: &str = "access.log";

/// Load balancer that `deploy/` configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalancerProduct {
    /// HAProxy, with `deploy/`'s `haproxy.cfg`.
    HaProxy,
    /// nginx, with `deploy/`'s `nginx.conf`.
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

/// A configuration file that ships, with changes.
#[derive(Debug)]
#[must_use]
pub struct Shipped {
    product: BalancerProduct,
    text: String,
}

impl Shipped {
    /// The file as it is.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(product: BalancerProduct) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(product.file());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { product, text })
    }

    /// Changes a text wherever it stands in the file.
    ///
    /// # Errors
    /// When it stands nowhere.
    pub fn with(mut self, text: &str, instead: &str) -> Result<Self> {
        ensure!(self.text.contains(text), "{} has no {text:?}", self.product.file());
        self.text = self.text.replace(text, instead);
        Ok(self)
    }

    /// Starts the balancer in front of two or three nodes, or HAProxy in front of more, and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start<'a>(self, stage: &Stage, nodes: impl IntoIterator<Item = &'a Proxy>) -> Result<LoadBalancer> {
        let (product, address, statistics) = (self.product, free_address()?, free_address()?);
        let nodes: Vec<&Proxy> = nodes.into_iter().collect();
        let placed = self.place(stage, &nodes, &address, &statistics)?;
        let path = stage.folder().join(product.name()).with_extension("conf");
        std::fs::write(&path, placed.text)?;
        let mut command = Command::new(Path::new(PROGRAMS).join(product.name()));
        match product {
            BalancerProduct::HaProxy => command.arg("-db").arg("-f").arg(&path),
            BalancerProduct::Nginx => command.arg("-e").arg("stderr").arg("-c").arg(&path),
        };
        let mut process = Process::start(stage, product.name(), command)?;
        until(async || {
            ensure!(process.is_running(), "{}", process.log());
            Ok(TcpStream::connect(&address).await.ok())
        })
        .await?;
        let access_log = (product == BalancerProduct::Nginx).then(|| stage.folder().join(ACCESS_LOG));
        Ok(LoadBalancer { process, address, statistics, access_log })
    }

    /// Puts it onto loopback: its own address, those of the nodes, and whatever it writes into the stage's folder.
    fn place(self, stage: &Stage, nodes: &[&Proxy], address: &str, statistics: &str) -> Result<Self> {
        let mut placed = match self.product {
            BalancerProduct::HaProxy => self
                .with("bind :80", &format!("bind {address}"))?
                .with("bind 127.0.0.1:8404", &format!("bind {statistics}"))?
                .with(" port 8090", "")?,
            BalancerProduct::Nginx => {
                let folder = stage.folder().display();
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let paths: String = paths.iter().map(|of| format!("{of}_temp_path {folder}/{of};\n")).collect();
                // One process: workers would outlive a master that is killed.
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

    /// Has as many servers as there are nodes, in place of three.
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

/// A running load balancer.
#[derive(Debug)]
pub struct LoadBalancer {
    /// Process that runs it.
    pub process: Process,
    address: String,
    statistics: String,
    access_log: Option<PathBuf>,
}

impl LoadBalancer {
    /// Address that it listens on, as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// All that it has logged.
    ///
    /// # Errors
    /// When its file can't be read.
    pub fn log(&self) -> Result<String> {
        let requests = self.access_log.as_ref().map(std::fs::read_to_string).transpose()?;
        Ok(self.process.log() + &requests.unwrap_or_default())
    }

    /// A URL for clients.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Whether HAProxy has found these nodes ready, and those down.
    ///
    /// # Errors
    /// When it tells nothing: nginx does not.
    pub async fn has_found(&self, ready: &[&str], down: &[&str]) -> Result<bool> {
        let metrics = Metrics::of(&self.statistics).await?;
        let says = |server: &str, name: &str, state: &str| {
            metrics.sum(name, &[("proxy", "trunkline"), ("server", server), ("state", state)]) == 1.0
        };
        // It begins with all of them up: a node is ready once a check has passed, too.
        let is_ready = |server: &str| {
            says(server, "haproxy_server_status", "UP") && says(server, "haproxy_server_check_status", "L7OK")
        };
        let is_down = |server: &str| says(server, "haproxy_server_status", "DOWN");
        Ok(ready.iter().all(|server| is_ready(server)) && down.iter().all(|server| is_down(server)))
    }

    /// Number of answers that HAProxy has passed on, of a class of statuses ("2xx"). It counts an answer as it
    /// passes; its log is no measure, because its threads drop a line where they would have to wait for each other.
    ///
    /// # Errors
    /// When it tells nothing: nginx does not.
    pub async fn answers(&self, class: &str) -> Result<f64> {
        let metrics = Metrics::of(&self.statistics).await?;
        Ok(metrics.sum("haproxy_server_http_responses_total", &[("proxy", "trunkline"), ("code", class)]))
    }
}
