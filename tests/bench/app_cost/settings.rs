//! Command line: subject and length of the measurements.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;

/// Maximum number of clients in one process with usual limits.
const CLIENTS_MAX: u32 = 9_000;
/// Maximum number of pending calls, which must fit into the buffers of a socket.
const OUTSTANDING_MAX: u32 = 64;

/// Settings of a run.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Settings {
    /// Rounds: each yields one pair of bare handler and app server, and one of two bare handlers
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
    /// Length of each window; a first window determines the corresponding number of calls
    #[arg(long, value_name = "S", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Clients, and pending calls of each
    #[arg(long, value_name = "CLIENTSxCALLS", default_value = "64x1,64x16", value_delimiter = ',')]
    pub(crate) loads: Vec<Load>,
    /// Size of the echoed text in bytes, without framing
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(24..=4_096))]
    pub(crate) payload: u32,
    /// Threads of the proxy that serve clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// Idle connections per wave
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=9_000))]
    pub(crate) idle: u32,
    /// Runs of the memory measurement, each with new processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) memory_runs: u32,
    /// Measure only this subject
    #[arg(long)]
    #[serde(skip)]
    pub(crate) only: Option<Subject>,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

/// Subject of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// CPU time per call.
    Calls,
    /// Memory per idle connection.
    Memory,
    /// Round trip times of one client.
    RoundTrips,
}

/// Load: number of clients, and of concurrent calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) outstanding: u32,
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let load = text.split_once('x').and_then(|(clients, outstanding)| {
            Some(Self { clients: clients.parse().ok()?, outstanding: outstanding.parse().ok()? })
        });
        let fits = |load: &Self| {
            (1..=CLIENTS_MAX).contains(&load.clients) && (1..=OUTSTANDING_MAX).contains(&load.outstanding)
        };
        load.filter(fits).ok_or_else(|| {
            format!("say 64x16 for 64 clients with 16 calls each; up to {CLIENTS_MAX} and {OUTSTANDING_MAX}")
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.clients, self.outstanding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_read_as_it_is_written() {
        let load: Load = "64x16".parse().unwrap();
        assert_eq!(load, Load { clients: 64, outstanding: 16 });
        assert_eq!(load.to_string(), "64x16");
        for wrong in ["64", "0x1", "1x0", "1x65", "x", "64x16x2"] {
            assert!(wrong.parse::<Load>().is_err(), "{wrong}");
        }
    }
}
