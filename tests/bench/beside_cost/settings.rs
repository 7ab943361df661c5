//! Command line of a run.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Companion of the crowd in some windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Beside {
    /// An open observer page with the list of clients
    Page,
    /// A live trace of a method, read as fast as possible
    Trace,
    /// A mirror of the hub with a frozen app server
    Mirror,
    /// A new app server that receives its share of the clients
    Rebalance,
}

/// CPU time per message of a proxy, and round trips of a client, beside something else and without it.
#[derive(Debug, Parser, Serialize)]
#[command(name = "beside_cost")]
pub(crate) struct Settings {
    /// Companion that is present only in some windows
    #[arg(long, value_enum, default_value_t = Beside::Page)]
    pub(crate) beside: Beside,
    /// Number of client connections
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=19_000))]
    pub(crate) clients: u32,
    /// Length of each window
    #[arg(long, value_name = "S", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) seconds: u32,
    /// Rounds: each yields one pair with and without the companion, and one pair without
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
    /// Threads of the proxy that serve clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// Traced method; `Message` covers all deliveries
    #[arg(long, value_name = "METHOD", default_value = "Message")]
    pub(crate) traced_method: String,
    /// Clients reassigned to a new app server per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rebalance_rate: u32,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

impl Beside {
    pub(crate) fn events(self) -> &'static str {
        match self {
            Self::Page => "events",
            Self::Trace => "traced",
            Self::Mirror => "copies",
            Self::Rebalance => "moved",
        }
    }

    /// Name of the companion, with its article.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Page => "an open page",
            Self::Trace => "a live trace",
            Self::Mirror => "a frozen mirror",
            Self::Rebalance => "a rebalance",
        }
    }
}
