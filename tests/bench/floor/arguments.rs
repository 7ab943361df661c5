//! Arguments of a crowd, which is a process.

use clap::ValueEnum;

use crate::broadcast::{Speech, To};
use crate::transport::Transport;
use crate::work::Work;

/// Server of a crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum At {
    Floor,
    /// Proxies before the app server `bench`.
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
    /// Proxies, if it is these
    #[arg(long)]
    pub(crate) proxies: u16,
    /// Threads of each that serve clients
    #[arg(long)]
    pub(crate) shards: u16,
    /// Client connections of a storm that are under way together
    #[arg(long)]
    pub(crate) under_way: usize,
    /// Bind the measured server to a core of its own
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Number of client connections
    #[arg(long)]
    pub(crate) clients: usize,
    /// Bytes of the text that travels
    #[arg(long)]
    pub(crate) payload: usize,
    /// Broadcasts that are asked for at once
    #[arg(long)]
    pub(crate) burst: u64,
    /// Bursts per second at most
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Audience of a message
    #[arg(long)]
    pub(crate) to: To,
    /// Transport of the clients
    #[arg(long)]
    pub(crate) transport: Transport,
    /// Hub protocols of the clients
    #[arg(long)]
    pub(crate) speech: Speech,
    /// Links between the proxy and its app server
    #[arg(long)]
    pub(crate) links: u16,
    /// Clients beside the crowd that have stopped reading
    #[arg(long)]
    pub(crate) stalled: u32,
    /// Clients beside the crowd that are idle
    #[arg(long)]
    pub(crate) idle: u32,
    /// Send to each client by a system call of its own
    #[arg(long)]
    pub(crate) singly: bool,
}
