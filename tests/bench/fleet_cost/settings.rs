//! Command line of a run.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Work of all nodes in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Messages to everyone that enter at one node, compared with the app server's
    Broadcast,
    /// Messages to a group that enter at one node, compared with the app server's
    Group,
    /// Idle nodes with --peers, compared with nodes without
    Idle,
    /// Messages of the app server at nodes with --peers, compared with nodes without
    Plain,
    /// Messages of an app server that dials in, compared with a dialled app server
    Door,
    /// Calls of clients of an app server that dials in, compared with a dialled app server
    DialInCalls,
    /// Clients that reconnect to another node, compared with reconnects to their own
    Move,
    /// Messages to clients of a hub with unused stateful reconnect, compared with a hub without
    Stateful,
}

/// CPU time and bytes of the nodes of a fleet, or of a node that accepts dial-in, beside nodes that do the same
/// without.
#[derive(Debug, Parser, Serialize)]
#[command(name = "fleet_cost")]
pub(crate) struct Settings {
    /// Work of the nodes to measure
    #[arg(long, default_value_t = Work::Broadcast, value_enum)]
    pub(crate) work: Work,
    /// Nodes of a fleet; by default 12 for idle nodes, otherwise 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,
    /// Client connections, distributed over the nodes; by default 10 for a group, otherwise 800
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=19_000))]
    clients: Option<u32>,
    /// Length of each window; by default 15 for idle nodes, otherwise 3
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// Rounds: each yields one pair of base and subject, and one of two bases
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
    /// Number of messages requested together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) burst: u64,
    /// Size of the text in bytes, without framing
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=16_384))]
    pub(crate) payload: u32,
    /// Threads of each node that serve clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn nodes(&self) -> u16 {
        self.nodes.unwrap_or(match self.work {
            Work::Idle => 12,
            Work::Door | Work::DialInCalls | Work::Stateful => 1,
            Work::Move => 2,
            Work::Broadcast | Work::Group | Work::Plain => 8,
        })
    }

    /// Client connections; idle nodes have none.
    pub(crate) fn clients(&self) -> u32 {
        match self.work {
            Work::Idle => 0,
            Work::Group => self.clients.unwrap_or(10),
            Work::DialInCalls | Work::Move => self.clients.unwrap_or(100),
            Work::Broadcast | Work::Plain | Work::Door | Work::Stateful => self.clients.unwrap_or(800),
        }
    }

    pub(crate) fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.work == Work::Idle { 15 } else { 3 })
    }

    pub(crate) fn units(&self) -> &'static str {
        match self.work {
            Work::Idle => "node-seconds",
            Work::DialInCalls => "calls",
            Work::Move => "returns",
            _ => "deliveries",
        }
    }
}
