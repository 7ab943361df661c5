//! Resource usage of processes: memory and CPU time from the system, link bytes from a proxy.
//!
//! Read from `/proc`; without it figures are omitted, and nothing fails.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::memory::Resident;

use crate::cli::RunArguments;

/// Process to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    name: String,
    pid: u32,
}

/// Processes and metrics to sample.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    processes: Vec<Watched>,
    metrics: Vec<String>,
}

/// Measurement of all processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    own: Usage,
    processes: Vec<Usage>,
    links: Vec<Option<u64>>,
}

/// Memory and CPU time of one process, if available.
#[derive(Debug, Clone, Default)]
struct Usage {
    memory: Resident,
    cpu: CpuTime,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessReport {
    pub(crate) name: String,
    pub(crate) before_bytes: u64,
    pub(crate) ready_bytes: u64,
    pub(crate) done_bytes: u64,
    pub(crate) peak_bytes: u64,
    /// Memory increase per client; only with a single process.
    pub(crate) bytes_per_client: f64,
    /// CPU seconds between ready and done.
    pub(crate) cpu_s: f64,
}

/// Bytes over a proxy's links between ready and done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LinkReport {
    pub(crate) url: String,
    pub(crate) bytes: u64,
}

impl Watch {
    pub(crate) fn of(arguments: &RunArguments) -> Result<Self> {
        let processes: Result<Vec<_>> = arguments.processes.iter().map(|text| Watched::parse(text)).collect();
        Ok(Self { processes: processes?, metrics: arguments.metrics.clone() })
    }

    pub(crate) async fn read(&self) -> Reading {
        let processes = self.processes.iter().map(|watched| Usage::of(watched.pid)).collect();
        let mut links = Vec::new();
        for url in &self.metrics {
            links.push(link_bytes(url).await.ok());
        }
        Reading { own: Usage::of(std::process::id()), processes, links }
    }

    /// Resource usage from three measurements: before the clients connected, when all were connected, and when their
    /// work was done.
    pub(crate) fn report(
        &self,
        [before, ready, done]: [&Reading; 3],
        clients: u64,
    ) -> (Vec<ProcessReport>, Vec<LinkReport>) {
        let processes = self.processes.iter().enumerate().filter_map(|(number, watched)| {
            let usage = |reading: &'_ Reading| reading.processes.get(number).cloned();
            let (before, ready, done) = (usage(before)?, usage(ready)?, usage(done)?);
            Some(ProcessReport {
                name: watched.name.clone(),
                before_bytes: before.memory.now_bytes,
                ready_bytes: ready.memory.now_bytes,
                done_bytes: done.memory.now_bytes,
                peak_bytes: done.memory.peak_bytes,
                bytes_per_client: ready.memory.now_bytes.saturating_sub(before.memory.now_bytes) as f64
                    / clients.max(1) as f64,
                cpu_s: done.cpu.since(&ready.cpu) as f64 / 1e9,
            })
        });
        let links = self.metrics.iter().enumerate().filter_map(|(number, url)| {
            let at = |reading: &Reading| reading.links.get(number).copied().flatten();
            Some(LinkReport { url: url.clone(), bytes: at(done)?.saturating_sub(at(ready)?) })
        });
        (processes.collect(), links.collect())
    }
}

impl Reading {
    /// CPU seconds of this process since an earlier measurement.
    pub(crate) fn own_cpu_s_since(&self, earlier: &Self) -> f64 {
        self.own.cpu.since(&earlier.own.cpu) as f64 / 1e9
    }

    pub(crate) fn own_peak_bytes(&self) -> u64 {
        self.own.memory.peak_bytes
    }
}

impl Watched {
    fn parse(text: &str) -> Result<Self> {
        let (name, pid) = text.split_once('=').unwrap_or((text, text));
        let pid = pid.parse().with_context(|| format!("--pid {text}: {pid} is no process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

impl Usage {
    fn of(pid: u32) -> Self {
        Self { memory: Resident::of(pid).unwrap_or_default(), cpu: CpuTime::of(pid).unwrap_or_default() }
    }
}

async fn link_bytes(url: &str) -> Result<u64> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().context("the URL names no host")?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let serving = tokio::task::spawn_local(connection);
    let path = if uri.path() == "/" { "/metrics" } else { uri.path() };
    let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, authority);
    let answer = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
    ensure!(answer.status().is_success(), "{url} answers {}", answer.status());
    let body = answer.into_body().collect().await?.to_bytes();
    serving.abort();
    Ok(sum_of(&String::from_utf8_lossy(&body), "trunkline_link_bytes_total"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of bytes, written as a float")]
fn sum_of(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_a_name() {
        assert_eq!(Watched::parse("proxy=12").unwrap(), Watched { name: "proxy".into(), pid: 12 });
        assert_eq!(Watched::parse("12").unwrap().name, "12");
        assert!(Watched::parse("proxy").is_err());
    }

    #[test]
    fn link_bytes_are_summed_over_all_labels() {
        let text = "# HELP trunkline_link_bytes_total x\ntrunkline_link_bytes_total{d=\"up\"} 3\n\
                    trunkline_link_bytes_total{d=\"down\"} 4\nother 9\n";
        assert_eq!(sum_of(text, "trunkline_link_bytes_total"), 7);
    }
}
