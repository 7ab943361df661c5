//! Settings of a run, and the figures of its rounds.

use std::path::PathBuf;

use clap::Parser;
use serde::Serialize;

/// CPU time per message of a proxy, with the observer page open and without.
#[derive(Debug, Parser, Serialize)]
#[command(name = "observer_cost")]
pub(crate) struct Settings {
    /// Number of client connections
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=19_000))]
    pub(crate) clients: u32,
    /// Length of each window
    #[arg(long, value_name = "S", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Rounds: each gives one pair of without and with, and one of without and without
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
    /// Threads of the proxy that serve clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// File for the figures as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

/// Figures of one window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Window {
    pub(crate) messages: f64,
    pub(crate) cpu_ns: u64,
    /// Events that an open page was told.
    pub(crate) events: u64,
}

/// The windows of a round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) without: Window,
    pub(crate) with: Window,
    pub(crate) without_again: Window,
}
