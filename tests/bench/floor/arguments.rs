//! Arguments of a crowd process.

use clap::ValueEnum;

use crate::broadcast::{ProtocolMix, To};
use crate::transport::Transport;
use crate::work::Work;

/// Server that a crowd connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum At {
    Floor,
    /// Proxies and the app server `bench`.
    Proxy,
}

/// Arguments of a crowd.
#[derive(Debug, clap::Args)]
pub(crate) struct CrowdArguments {
    /// Server of the crowd
    #[arg(long)]
    pub(crate) at: At,
    /// Work of the crowd
    #[arg(long)]
    pub(crate) work: Work,
    /// Number of proxies, if used
    #[arg(long)]
    pub(crate) proxies: u16,
    /// Threads of each that serve clients
    #[arg(long)]
    pub(crate) shards: u16,
    /// Concurrent connects of a storm
    #[arg(long)]
    pub(crate) under_way: usize,
    /// Bind the measured server to a separate core
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Number of client connections
    #[arg(long)]
    pub(crate) clients: usize,
    /// Size of the text in bytes
    #[arg(long)]
    pub(crate) payload: usize,
    /// Number of broadcasts requested together
    #[arg(long)]
    pub(crate) burst: u64,
    /// Maximum bursts per second
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Recipients of a message
    #[arg(long)]
    pub(crate) to: To,
    /// Transport of the clients
    #[arg(long)]
    pub(crate) transport: Transport,
    /// Hub protocols of the clients
    #[arg(long)]
    pub(crate) speech: ProtocolMix,
    /// Links between the proxy and its app server
    #[arg(long)]
    pub(crate) links: u16,
    /// Additional clients that have stopped reading
    #[arg(long)]
    pub(crate) stalled: u32,
    /// Number of additional idle clients
    #[arg(long)]
    pub(crate) idle: u32,
    /// Send to each client with a separate system call
    #[arg(long)]
    pub(crate) singly: bool,
}
