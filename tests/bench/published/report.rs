//! Relevant parts of the load tester's report.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Supported version of the report.
const VERSION: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Report {
    version: u32,
    pub(crate) counts: Counts,
    pub(crate) tally: Tally,
    pub(crate) published: Published,
    /// Rows of its table.
    pub(crate) quantiles: Vec<Quantiles>,
    pub(crate) generator: Generator,
    pub(crate) processes: Vec<Process>,
    /// Reasons why its results may be unreliable.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Counts {
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) misdelivered: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tally {
    /// Failed connects, by cause.
    failed: BTreeMap<String, u64>,
    /// Unexpected ends of connections, by cause.
    ended: BTreeMap<String, u64>,
    /// Failed calls, by cause.
    errors: BTreeMap<String, u64>,
}

/// Averages of the clients, in µs.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Published {
    averages: u64,
    sum_us: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) name: String,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// Resource usage of the generator; CPU time from ready until everything has arrived.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Generator {
    pub(crate) cpu_s: f64,
    pub(crate) peak_bytes: u64,
}

/// Resource usage of another process, in that time.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) cpu_s: f64,
    pub(crate) peak_bytes: u64,
}

impl Report {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("the generator has written no report")?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(text).context("the generator's report")?;
        ensure!(report.version == VERSION, "the generator's report is of version {}", report.version);
        Ok(report)
    }

    /// Counts of failures, by name.
    pub(crate) fn faults(&self) -> [(&'static str, u64); 5] {
        let Counts { lost, duplicated, reordered, misdelivered, .. } = self.counts;
        let Tally { failed, ended, errors } = &self.tally;
        let failed = [failed, ended, errors].into_iter().flat_map(BTreeMap::values).sum();
        [
            ("lost", lost),
            ("duplicated", duplicated),
            ("out of order", reordered),
            ("misdelivered", misdelivered),
            ("failed", failed),
        ]
    }

    /// Whether messages were expected, and all of them have arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.counts.expected > 0 && self.counts.received == self.counts.expected
    }

    /// Average of the clients' averages, if measured.
    pub(crate) fn average_us(&self) -> Option<f64> {
        let Published { averages, sum_us } = self.published;
        (averages > 0).then(|| sum_us / averages as f64)
    }

    /// Row of its table, if measured.
    pub(crate) fn times(&self, name: &str) -> Option<&Quantiles> {
        self.quantiles.iter().find(|row| row.name == name)
    }

    pub(crate) fn proxies(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.name.starts_with("proxy"))
    }
}
