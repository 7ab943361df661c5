//! Flags of links to app servers.

use std::time::Duration;

use clap::Args;
use trunkline_protocol::limits::{LINK_RING_MAX_BYTES, RESUME_WINDOW_MS};
use trunkline_proxy::parts::LinkSettings;

use super::value_parser::{bytes, bytes_text, seconds};
use crate::quantity::duration_text;

/// Least number of bytes for `--link-outbox-max-bytes`.
const OUTBOX_MIN_BYTES: u64 = 4096;

/// Least number of bytes for `--link-ring-max-bytes`.
const RING_MIN_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, Args)]
pub(crate) struct LinkArgs {
    /// How long a link to an app server may be away before its clients are closed. A link that comes back in
    /// time has lost nothing. 0: never resume.
    #[arg(long, env = "TRUNKLINE_RESUME_WINDOW", value_name = "SECONDS", default_value = duration_text(Duration::from_millis(RESUME_WINDOW_MS)), value_parser = seconds(0..=600))]
    pub resume_window: Duration,

    #[arg(help = "What may wait for one link before its clients are read no further",
          long, env = "TRUNKLINE_LINK_OUTBOX_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(LinkSettings::default().outbox_max_bytes),
          value_parser = bytes::<usize>(OUTBOX_MIN_BYTES..=u64::MAX))]
    pub link_outbox_max_bytes: usize,

    #[arg(help = "What is kept for one link until the app server acknowledges it, what waits included. When it is \
              full its clients are read no further",
          long, env = "TRUNKLINE_LINK_RING_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(LINK_RING_MAX_BYTES),
          value_parser = bytes::<usize>(RING_MIN_BYTES..=u64::MAX))]
    pub link_ring_max_bytes: usize,
}

impl From<&LinkArgs> for LinkSettings {
    fn from(args: &LinkArgs) -> Self {
        Self {
            outbox_max_bytes: args.link_outbox_max_bytes,
            ring_max_bytes: args.link_ring_max_bytes,
            resume_window_ms: u64::try_from(args.resume_window.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
