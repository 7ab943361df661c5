//! Command line of a run.

use std::path::PathBuf;

use crate::broadcast::{ProtocolMix, To};
use crate::transport::Transport;
use crate::work::Work;

/// Settings of a run.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub(crate) struct Settings {
    /// Work of the clients
    #[arg(long, default_value_t = Work::Broadcast, value_enum)]
    pub(crate) work: Work,
    /// Concurrent connects of a storm
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) under_way: u32,
    /// Bind the floor or the proxy to one core, and the generator and the app server to another
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Client connections; for connects, the number of concurrent ones
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub(crate) clients: u32,
    /// Length of each window
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Rounds: each yields one pair of floor and proxy, and one of two floors
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
    /// Size of the text in bytes, without framing
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub(crate) payload: u32,
    /// Broadcasts requested together; the floor combines them in one write
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) burst: u64,
    /// Recipients of a message
    #[arg(long, default_value_t = To::Everyone, value_enum)]
    pub(crate) to: To,
    /// Transport of the clients; others than WebSockets are compared with WebSockets, broadcasts only
    #[arg(long, default_value_t = Transport::WebSockets, value_enum)]
    pub(crate) transport: Transport,
    /// Hub protocols of the clients; the floor sends JSON to all
    #[arg(long, default_value_t = ProtocolMix::Json, value_enum)]
    pub(crate) speech: ProtocolMix,
    /// Links between each proxy and the app server
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) links: u16,
    /// Maximum bursts per second; by default, each starts when the previous one has arrived
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: Option<u32>,
    /// Proxies, with clients distributed round robin; calls and broadcasts only
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) proxies: u16,
    /// Threads of each proxy that serve clients; the floor is always one thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// Additional clients that have stopped reading: compares a proxy with them with a proxy without them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) stalled: u32,
    /// Additional idle clients: compares a proxy with them with a proxy without them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=18_000))]
    pub(crate) idle: u32,
    /// Send to each client with a separate system call: compares such a proxy with a normal one
    #[arg(long)]
    pub(crate) singly: bool,
    /// File for the results as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

impl Settings {
    /// Whether two proxies are compared, instead of a proxy and the floor.
    pub(crate) fn compares_proxies(&self) -> bool {
        self.stalled > 0 || self.idle > 0 || self.singly || self.transport != Transport::WebSockets
    }
}
