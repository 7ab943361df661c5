//! Settings for clients that have lost their app server.

use std::time::Duration;

/// Settings for clients that have lost their app server: how long they wait for another, and what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RehomeSettings {
    /// Time that clients wait for an app server, in ticks of a second.
    pub hold_timeout_s: u32,
    /// Lets new clients wait, too.
    pub holds_new: bool,
    /// Limit of one client's calls without an answer.
    pub pending_calls_max: usize,
    /// Clients that the node gives to newcomers in a second; 0 gives none.
    pub app_rebalance_per_s: u32,
}

impl RehomeSettings {
    /// Time to hold clients: long enough for a restart of the only app server. Clients for newcomers: half of ten
    /// thousand go within a minute, and `on_rehomed` of an app server that has just started runs a hundred times a
    /// second for each node.
    pub const DEFAULT: Self =
        Self { hold_timeout_s: 60, holds_new: false, pending_calls_max: 1_000, app_rebalance_per_s: 100 };

    /// Returns how long a new client waits for a lost link: as long as a client waits for its hub handshake, which is
    /// also how long the hub would wait for it, and no longer than clients are held at all.
    #[must_use]
    pub fn link_wait(&self, handshake_timeout_ms: u64) -> Duration {
        Duration::from_secs(self.hold_timeout_s.into()).min(Duration::from_millis(handshake_timeout_ms))
    }
}
