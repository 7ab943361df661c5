//! Limits of the front door: how many, how fast, how large. 0 is no limit where nothing else is said.

use std::num::NonZeroU32;
use std::time::Duration;

/// Client connections and open requests of a node: several gigabytes of memory, and more than one process should hold.
const CONNECTIONS_MAX: u32 = 1_000_000;

/// A client that connects and says nothing is not waited for any longer.
const HEADER_TIMEOUT_S: u64 = 15;

/// Largest head of a request: Azure's limit for headers is 16 KiB, and tokens travel in the URL.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Largest body of a request to a hub; the official server's.
const BODY_MAX_BYTES: u64 = 30_000_000;

/// A burst waits this long before somebody is sent away: shorter than any client's patience.
const CONNECT_WAIT_MS: u64 = 1_000;

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Sockets of clients on this node; who comes then gets 503 and `Retry-After`. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_CONNECTIONS_MAX", value_name = "N", default_value_t = CONNECTIONS_MAX)]
    pub connections_max: u32,

    /// Client connections from one address, or from one /64 of IPv6; who comes then gets 429. 0 for no limit. Behind a
    /// load balancer it needs `--trust`, or all clients have the balancer's address.
    #[arg(long, env = "TRUNKLINE_CONNECTIONS_PER_ADDRESS_MAX", value_name = "N", default_value_t = 0)]
    pub connections_per_address_max: u32,

    /// How long a client may take for the head of a request, in seconds.
    #[arg(long, env = "TRUNKLINE_HEADER_TIMEOUT", value_name = "SECONDS", default_value_t = HEADER_TIMEOUT_S,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub header_timeout: u64,

    /// Largest head of a request in bytes, from 8192 on; beyond it 431.
    #[arg(long, env = "TRUNKLINE_HEAD_MAX_BYTES", value_name = "BYTES", default_value_t = HEAD_MAX_BYTES)]
    pub head_max_bytes: usize,

    /// Largest body of a request to a hub in bytes; beyond it 413.
    #[arg(long, env = "TRUNKLINE_BODY_MAX_BYTES", value_name = "BYTES", default_value_t = BODY_MAX_BYTES)]
    pub body_max_bytes: u64,

    /// New client connections of this node in a second, counted when they negotiate, or connect without it. 0 for no
    /// limit. A burst of a second's worth passes at once, more of it waits up to `--connect-wait-ms`, the rest gets 503
    /// and `Retry-After`.
    #[arg(long, env = "TRUNKLINE_CONNECTS_PER_SECOND", value_name = "N", default_value_t = 0)]
    pub connects_per_second: u32,

    /// How long a new client connection may wait for its turn under `--connects-per-second`, in milliseconds.
    #[arg(long, env = "TRUNKLINE_CONNECT_WAIT_MS", value_name = "MS", default_value_t = CONNECT_WAIT_MS,
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub connect_wait_ms: u64,

    /// Negotiates of one address, or of one /64 of IPv6, that have not led to a connection on this node within some 20
    /// seconds; who asks then gets 429 and `Retry-After`. 0 for no limit. With several nodes most connections land
    /// elsewhere, so leave room.
    #[arg(long, env = "TRUNKLINE_PENDING_PER_ADDRESS_MAX", value_name = "N", default_value_t = 0)]
    pub pending_per_address_max: u32,

    /// Messages of one client connection in a second; beyond a second's worth it is read more slowly. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_MESSAGES_PER_SECOND", value_name = "N", default_value_t = 0)]
    pub messages_per_second: u32,

    /// Bytes of one client connection in a second; beyond a second's worth it is read more slowly. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_BYTES_PER_SECOND", value_name = "BYTES", default_value_t = 0)]
    pub bytes_per_second: u32,
}

#[cfg(feature = "cli")]
impl LimitArgs {
    /// What was meant; ranges are checked by whoever reads the flags.
    #[must_use]
    pub fn check(&self) -> Limits {
        Limits {
            connections: NonZeroU32::new(self.connections_max),
            connections_per_address: NonZeroU32::new(self.connections_per_address_max),
            header_timeout: Duration::from_secs(self.header_timeout),
            head_max_bytes: self.head_max_bytes,
            body_max_bytes: self.body_max_bytes,
            connects_per_second: NonZeroU32::new(self.connects_per_second),
            connect_wait: Duration::from_millis(self.connect_wait_ms),
            pending_per_address: NonZeroU32::new(self.pending_per_address_max),
            messages_per_second: NonZeroU32::new(self.messages_per_second),
            bytes_per_second: NonZeroU32::new(self.bytes_per_second),
        }
    }
}

/// Limits of the front door; `None` is no limit.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets of clients on the node.
    pub connections: Option<NonZeroU32>,
    /// Client connections from one address.
    pub connections_per_address: Option<NonZeroU32>,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// Largest head of a request.
    pub head_max_bytes: usize,
    /// Largest body of a request to a hub.
    pub body_max_bytes: u64,
    /// New client connections in a second.
    pub connects_per_second: Option<NonZeroU32>,
    /// How long they may wait for their turn.
    pub connect_wait: Duration,
    /// Negotiates of one address that led to no connection yet.
    pub pending_per_address: Option<NonZeroU32>,
    /// Messages of one client connection in a second.
    pub messages_per_second: Option<NonZeroU32>,
    /// Bytes of one client connection in a second.
    pub bytes_per_second: Option<NonZeroU32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: NonZeroU32::new(CONNECTIONS_MAX),
            connections_per_address: None,
            header_timeout: Duration::from_secs(HEADER_TIMEOUT_S),
            head_max_bytes: HEAD_MAX_BYTES,
            body_max_bytes: BODY_MAX_BYTES,
            connects_per_second: None,
            connect_wait: Duration::from_millis(CONNECT_WAIT_MS),
            pending_per_address: None,
            messages_per_second: None,
            bytes_per_second: None,
        }
    }
}
