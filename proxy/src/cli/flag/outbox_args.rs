//! Flags of what waits to be written to clients.

use clap::Args;

use super::config_error::{ConfigError, check_range};
use crate::config::OutboxLimits;

/// Least number of bytes that both flags take.
const OUTBOX_MIN_BYTES: usize = 4096;

#[derive(Debug, Clone, Args)]
pub(crate) struct OutboxArgs {
    #[arg(help = "What may wait for one client before it is closed as too slow, in bytes. A hub may have sends to many dropped \
              instead",
          long, env = "TRUNKLINE_OUTBOX_MAX_BYTES", value_name = "BYTES", default_value_t = OutboxLimits::default().client_bytes)]
    pub outbox_max_bytes: usize,

    #[arg(help = "What may wait for all clients of this node, in bytes; beyond it those for whom most waits are closed. Each \
              shard has an equal share of it. 0 for no limit",
          long, env = "TRUNKLINE_OUTBOX_TOTAL_MAX_BYTES", value_name = "BYTES", default_value_t = OutboxLimits::default().total_bytes)]
    pub outbox_total_max_bytes: usize,
}

impl TryFrom<&OutboxArgs> for OutboxLimits {
    type Error = ConfigError;

    fn try_from(args: &OutboxArgs) -> Result<Self, ConfigError> {
        let (client_bytes, total) = (args.outbox_max_bytes, args.outbox_total_max_bytes);
        let total_bytes = if total == 0 { usize::MAX } else { total };
        check_range("--outbox-max-bytes", client_bytes, OUTBOX_MIN_BYTES..=usize::MAX)?;
        check_range("--outbox-total-max-bytes", total_bytes, OUTBOX_MIN_BYTES..=usize::MAX)?;
        Ok(Self { client_bytes, total_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(outbox_max_bytes: usize, outbox_total_max_bytes: usize) -> Result<OutboxLimits, ConfigError> {
        OutboxLimits::try_from(&OutboxArgs { outbox_max_bytes, outbox_total_max_bytes })
    }

    #[test]
    fn a_total_of_zero_is_no_limit_and_a_tiny_one_is_refused() {
        assert_eq!(limits(4096, 0).unwrap().total_bytes, usize::MAX);
        let problem = limits(4096, 1).unwrap_err().to_string();
        assert!(problem.starts_with("--outbox-total-max-bytes is 1, but must be from 4096"), "{problem}");
    }
}
