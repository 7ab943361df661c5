//! What may wait for clients.

/// What may wait for one client: some seconds of a busy hub, and little enough for thousands of slow ones.
const CLIENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What may wait for all clients: a few hundred that have stopped reading. A frame counts for each who waits for it, so
/// the memory is less wherever they share it.
const TOTAL_MAX_BYTES: usize = 1024 * 1024 * 1024;

/// What may wait for clients, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// For one.
    pub client_bytes: usize,
    /// For all; `usize::MAX` is no limit.
    pub total_bytes: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { client_bytes: CLIENT_MAX_BYTES, total_bytes: TOTAL_MAX_BYTES }
    }
}

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, clap::Args)]
pub struct OutboxArgs {
    /// What may wait for one client before it is closed as too slow, in bytes. A hub may have sends to many dropped
    /// instead.
    #[arg(long, env = "TRUNKLINE_OUTBOX_MAX_BYTES", value_name = "BYTES", default_value_t = CLIENT_MAX_BYTES)]
    pub outbox_max_bytes: usize,

    /// What may wait for all clients of this node, in bytes; beyond it those for whom most waits are closed. Each shard
    /// has an equal share of it. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_OUTBOX_TOTAL_MAX_BYTES", value_name = "BYTES", default_value_t = TOTAL_MAX_BYTES)]
    pub outbox_total_max_bytes: usize,
}

#[cfg(feature = "cli")]
impl OutboxArgs {
    pub(super) fn limits(&self) -> OutboxLimits {
        let total_bytes = if self.outbox_total_max_bytes == 0 { usize::MAX } else { self.outbox_total_max_bytes };
        OutboxLimits { client_bytes: self.outbox_max_bytes, total_bytes }
    }
}
