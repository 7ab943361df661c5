//! Clock of a session: milliseconds since some instant, as required by
//! [`Session`](trunkline_protocol::service::Session).

use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since a fixed instant.
#[derive(Debug, Clone, Copy)]
pub struct LinkClock {
    started: Instant,
}

impl LinkClock {
    /// Creates a clock that is 0 at this instant.
    #[must_use]
    pub fn since(started: Instant) -> Self {
        Self { started }
    }

    /// Creates a clock that is 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self::since(Instant::now())
    }

    /// Current time of the clock.
    #[must_use]
    pub fn now_ms(self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Instant at which the clock shows `at_ms`.
    #[must_use]
    pub fn instant(self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}
