//! Settings of links: how much they keep, and how long they may be away.

#[cfg(feature = "cli")]
use clap::Args;
use trunkline_protocol::limits::{LINK_RING_MAX_BYTES, RESUME_WINDOW_MS};
use trunkline_protocol::service::SessionSettings;

#[cfg(feature = "cli")]
use super::args::{ConfigError, limit};

/// What may wait for one link before its clients are read no further: some milliseconds of a busy link. More would only
/// be more that is under way when the app server asks for a client to be paused.
const OUTBOX_MAX_BYTES: usize = 1024 * 1024;

/// What links go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// What may wait for one link's socket.
    pub outbox_max_bytes: usize,
    /// What may wait for one link's socket or to be acknowledged.
    pub ring_max_bytes: usize,
    /// How long a lost link may be resumed; 0: never.
    pub resume_window_ms: u64,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            outbox_max_bytes: OUTBOX_MAX_BYTES,
            ring_max_bytes: LINK_RING_MAX_BYTES,
            resume_window_ms: RESUME_WINDOW_MS,
        }
    }
}

impl LinkSettings {
    /// Whether links resume at all.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        self.resume_window_ms > 0
    }

    /// Those of each session.
    #[must_use]
    pub fn session(&self) -> SessionSettings {
        SessionSettings::new(self.ring_max_bytes, self.resume_window_ms)
    }
}

/// Options for links.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Args)]
pub struct LinkArgs {
    /// How long a link to an app server may be away before its clients are closed, in seconds. A link that comes back in
    /// time has lost nothing. 0: never resume.
    #[arg(long, env = "TRUNKLINE_RESUME_WINDOW", value_name = "SECONDS", default_value_t = RESUME_WINDOW_MS / 1000,
          value_parser = clap::value_parser!(u64).range(0..=600))]
    pub resume_window: u64,

    /// What may wait for one link before its clients are read no further, in bytes.
    #[arg(long, env = "TRUNKLINE_LINK_OUTBOX_MAX_BYTES", value_name = "BYTES", default_value_t = OUTBOX_MAX_BYTES)]
    pub link_outbox_max_bytes: usize,

    /// What is kept for one link until the app server acknowledges it, what waits included, in bytes. When it is full its
    /// clients are read no further.
    #[arg(long, env = "TRUNKLINE_LINK_RING_MAX_BYTES", value_name = "BYTES", default_value_t = LINK_RING_MAX_BYTES)]
    pub link_ring_max_bytes: usize,
}

#[cfg(feature = "cli")]
impl LinkArgs {
    pub(super) fn check(&self) -> Result<LinkSettings, ConfigError> {
        limit("--link-outbox-max-bytes", self.link_outbox_max_bytes, 4096, usize::MAX)?;
        limit("--link-ring-max-bytes", self.link_ring_max_bytes, 64 * 1024, usize::MAX)?;
        Ok(LinkSettings {
            outbox_max_bytes: self.link_outbox_max_bytes,
            ring_max_bytes: self.link_ring_max_bytes,
            resume_window_ms: self.resume_window * 1000,
        })
    }
}
