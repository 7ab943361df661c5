//! Settings of the HTTP transports: server-sent events and long polling.

use std::time::Duration;

/// Settings of server-sent events and long polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpTransportSettings {
    /// Time that a poll waits for messages.
    pub poll_timeout: Duration,
    /// Time that a client may be without a GET, in ticks of a second.
    pub disconnect_timeout_s: u32,
}

impl HttpTransportSettings {
    /// Defaults of the official server.
    pub const DEFAULT: Self = Self { poll_timeout: Duration::from_secs(90), disconnect_timeout_s: 15 };
}
