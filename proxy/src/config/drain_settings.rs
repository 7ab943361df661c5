//! Timing of a graceful shutdown.

use std::time::Duration;

use super::option_group::settings;

/// Time at the end of the drain reserved for clients to close: the official server's timeout for a close response.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

settings! {
    /// Timing of a graceful stop.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DrainSettings {
        /// Time for which a stopping node still accepts clients. During it `/readyz` answers 503, so that load
        /// balancers choose other nodes before clients are refused: give a little more than they need to notice.
        /// Responses close their connections during this time.
        #[flag("drain-grace", Seconds(0..=3600))]
        pub grace: Duration = Duration::ZERO,

        /// Time for clients to leave when the node stops. The node asks them to reconnect one after the other, spread
        /// evenly over most of this time, so that they don't all connect elsewhere together, and each client between
        /// its calls.
        #[flag("drain-timeout", Seconds(0..=3600))]
        pub timeout: Duration = Duration::from_secs(30),
    }
}

impl DrainSettings {
    /// Returns the time over which closes are spread. The last clients need a part of the timeout to disconnect.
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
