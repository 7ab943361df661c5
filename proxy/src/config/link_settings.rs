//! Settings of links: how much they buffer, and how long they may be lost.

use trunkline_protocol::limits::{LINK_RING_MAX_BYTES, RESUME_WINDOW_MS};
use trunkline_protocol::service::SessionSettings;

/// Bytes that may wait for one link before its clients are paused: some milliseconds of a busy link. More would only
/// be more under way when the app server asks for a client to be paused.
const OUTBOX_MAX_BYTES: usize = 1024 * 1024;

/// Settings of links to app servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// Bytes that may wait for one link's socket.
    pub outbox_max_bytes: usize,
    /// Bytes that may wait for one link's socket or to be acknowledged.
    pub ring_max_bytes: usize,
    /// Time within which a lost link may be resumed; 0 for never.
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
    /// Tells whether links resume at all.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        self.resume_window_ms > 0
    }

    /// Returns the settings of each session.
    #[must_use]
    pub fn session(&self) -> SessionSettings {
        SessionSettings::new(self.ring_max_bytes, self.resume_window_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_zero_turns_resuming_off() {
        assert!(LinkSettings::default().can_resume());
        assert!(!LinkSettings { resume_window_ms: 0, ..LinkSettings::default() }.can_resume());
    }
}
