//! The clock of a session: milliseconds since some instant, as [`Session`](trunkline_protocol::service::Session)
//! counts.

use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since a fixed instant.
#[derive(Debug, Clone, Copy)]
pub struct LinkClock {
    started: Instant,
}

impl LinkClock {
    /// A clock that shows 0 at this instant.
    #[must_use]
    pub fn since(started: Instant) -> Self {
        Self { started }
    }

    /// A clock that shows 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self::since(Instant::now())
    }

    /// The time it shows now.
    #[must_use]
    pub fn now_ms(self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant at which it shows `at_ms`.
    #[must_use]
    pub fn instant(self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}
