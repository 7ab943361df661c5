//! Flags of links to app servers.

use clap::Args;
use trunkline_protocol::limits::{LINK_RING_MAX_BYTES, RESUME_WINDOW_MS};

use super::config_error::{ConfigError, check_range};
use crate::config::LinkSettings;

/// Least number of bytes for `--link-outbox-max-bytes`.
const OUTBOX_MIN_BYTES: usize = 4096;

/// Least number of bytes for `--link-ring-max-bytes`.
const RING_MIN_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Args)]
pub(crate) struct LinkArgs {
    /// How long a link to an app server may be away before its clients are closed, in seconds. A link that comes back in
    /// time has lost nothing. 0: never resume.
    #[arg(long, env = "TRUNKLINE_RESUME_WINDOW", value_name = "SECONDS", default_value_t = RESUME_WINDOW_MS / 1000,
          value_parser = clap::value_parser!(u64).range(0..=600))]
    pub resume_window: u64,

    #[arg(help = "What may wait for one link before its clients are read no further, in bytes",
          long, env = "TRUNKLINE_LINK_OUTBOX_MAX_BYTES", value_name = "BYTES", default_value_t = LinkSettings::default().outbox_max_bytes)]
    pub link_outbox_max_bytes: usize,

    #[arg(help = "What is kept for one link until the app server acknowledges it, what waits included, in bytes. When it is \
              full its clients are read no further",
          long, env = "TRUNKLINE_LINK_RING_MAX_BYTES", value_name = "BYTES", default_value_t = LINK_RING_MAX_BYTES)]
    pub link_ring_max_bytes: usize,
}

impl TryFrom<&LinkArgs> for LinkSettings {
    type Error = ConfigError;

    fn try_from(args: &LinkArgs) -> Result<Self, ConfigError> {
        check_range("--link-outbox-max-bytes", args.link_outbox_max_bytes, OUTBOX_MIN_BYTES..=usize::MAX)?;
        check_range("--link-ring-max-bytes", args.link_ring_max_bytes, RING_MIN_BYTES..=usize::MAX)?;
        Ok(Self {
            outbox_max_bytes: args.link_outbox_max_bytes,
            ring_max_bytes: args.link_ring_max_bytes,
            resume_window_ms: args.resume_window * 1000,
        })
    }
}
