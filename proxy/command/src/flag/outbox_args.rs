//! Flags of what waits to be written to clients.

use clap::Args;
use trunkline_proxy::parts::OutboxLimits;

use super::value_parser::{bytes, bytes_limit, bytes_text};

/// Least number of bytes that both flags take.
const OUTBOX_MIN_BYTES: u64 = 4096;

#[derive(Debug, Clone, Args)]
pub(crate) struct OutboxArgs {
    #[arg(help = "What may wait for one client before it is closed as too slow. A hub may have sends to many dropped \
              instead",
          long, env = "TRUNKLINE_OUTBOX_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(OutboxLimits::default().client_bytes),
          value_parser = bytes::<usize>(OUTBOX_MIN_BYTES..=u64::MAX))]
    pub outbox_max_bytes: usize,

    #[arg(help = "What may wait for all clients of this node; beyond it those for whom most waits are closed. Each \
              shard has an equal share of it. 0 for no limit",
          long, env = "TRUNKLINE_OUTBOX_TOTAL_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(OutboxLimits::default().total_bytes),
          value_parser = bytes_limit(OUTBOX_MIN_BYTES))]
    pub outbox_total_max_bytes: usize,

    /// Send to each client by a system call of its own. Otherwise what many clients get leaves by one call for some
    /// hundred of them, where the system lets a node make an io_uring: on Linux from 6.1 on, outside of sandboxes that
    /// forbid it, as containers by default do. The log says which it is.
    #[arg(long, env = "TRUNKLINE_NO_VECTORED_SENDS")]
    pub no_vectored_sends: bool,
}

impl From<&OutboxArgs> for OutboxLimits {
    fn from(args: &OutboxArgs) -> Self {
        Self {
            client_bytes: args.outbox_max_bytes,
            total_bytes: args.outbox_total_max_bytes,
            has_vectored_sends: !args.no_vectored_sends,
        }
    }
}
