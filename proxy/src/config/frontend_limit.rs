//! Limits of the client listeners: numbers, rates and sizes.

use std::num::NonZeroU32;
use std::time::Duration;

/// Limit of client connections and open requests of a node: several gigabytes of memory, and more than one process
/// should hold.
const CONNECTIONS_MAX: u32 = 1_000_000;

/// Time that a client has for the head of a request.
const HEADER_TIMEOUT_S: u64 = 15;

/// Time for which a connection is kept without any request: Kestrel's, and well above the 15 s between two pings of a
/// client of an HTTP transport.
const KEEP_ALIVE_TIMEOUT_S: u64 = 130;

/// Largest head of a request: Azure's limit for headers is 16 KiB, and tokens travel in the URL.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Largest body of a request to a hub; the official server's.
const BODY_MAX_BYTES: u64 = 30_000_000;

/// Time for which a body may stand still; that of most reverse proxies, in both directions.
const BODY_TIMEOUT_S: u64 = 60;

/// Time that a burst waits before clients are refused: shorter than any client's time-out.
const CONNECT_WAIT_MS: u64 = 1_000;

/// Messages of one client connection per second: some per cent of a core. No client sends as many but a loop, whose
/// messages are small; bytes need no such bound, because they cost the sender what they cost the node.
const MESSAGES_PER_SECOND: u32 = 20_000;

/// Limits of the client listeners; `None` for no limit.
#[derive(Debug, Clone)]
pub struct FrontendLimits {
    /// Client sockets on the node.
    pub connections: Option<NonZeroU32>,
    /// Client connections from one address.
    pub connections_per_address: Option<NonZeroU32>,
    /// Sockets from one address that are no client connection (yet). Nodes carry requests of many clients by theirs, so
    /// this is limited only where somebody says so.
    pub sockets_per_address: Option<NonZeroU32>,
    /// Time that a client has for the head of a request.
    pub header_timeout: Duration,
    /// Time for which a connection is kept without any request.
    pub keep_alive_timeout: Duration,
    /// Largest head of a request.
    pub head_max_bytes: usize,
    /// Largest body of a request to a hub.
    pub body_max_bytes: u64,
    /// Time for which a body may stand still because of its client.
    pub body_timeout: Duration,
    /// New client connections per second.
    pub connects_per_second: Option<NonZeroU32>,
    /// Time that a new client connection may wait for its turn.
    pub connect_wait: Duration,
    /// Negotiations of one address that have not led to a connection yet.
    pub pending_per_address: Option<NonZeroU32>,
    /// Messages of one client connection per second.
    pub messages_per_second: Option<NonZeroU32>,
    /// Bytes of one client connection per second.
    pub bytes_per_second: Option<NonZeroU32>,
}

impl Default for FrontendLimits {
    fn default() -> Self {
        Self {
            connections: NonZeroU32::new(CONNECTIONS_MAX),
            connections_per_address: None,
            sockets_per_address: None,
            header_timeout: Duration::from_secs(HEADER_TIMEOUT_S),
            keep_alive_timeout: Duration::from_secs(KEEP_ALIVE_TIMEOUT_S),
            head_max_bytes: HEAD_MAX_BYTES,
            body_max_bytes: BODY_MAX_BYTES,
            body_timeout: Duration::from_secs(BODY_TIMEOUT_S),
            connects_per_second: None,
            connect_wait: Duration::from_millis(CONNECT_WAIT_MS),
            pending_per_address: None,
            messages_per_second: NonZeroU32::new(MESSAGES_PER_SECOND),
            bytes_per_second: None,
        }
    }
}
