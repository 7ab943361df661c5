//! Timing of a graceful stop.

use std::time::Duration;

/// Time at the end of the drain that is left for clients to close: what the official server gives them to answer a
/// close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Timing of a graceful stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainSettings {
    /// Time during which a node that is no longer ready still accepts and serves clients.
    pub grace: Duration,
    /// Time after that within which all clients must have disconnected.
    pub timeout: Duration,
}

impl DrainSettings {
    /// Returns the time over which closes are spread: the last clients need some of the time-out to disconnect.
    #[must_use]
    pub fn spread(self) -> Duration {
        self.timeout.saturating_sub(CLOSE_TIMEOUT.min(self.timeout / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_clients_have_some_time_to_disconnect() {
        let spread = |seconds| DrainSettings { grace: Duration::ZERO, timeout: Duration::from_secs(seconds) }.spread();
        assert_eq!(spread(30), Duration::from_secs(25));
        assert_eq!(spread(4), Duration::from_secs(3));
        assert_eq!(spread(0), Duration::ZERO);
    }
}
