//! How a node stops.

use std::time::Duration;

/// Clients are given this much of the end of the drain to leave; it is what the official server gives them to answer a
/// close.
const LEAVING: Duration = Duration::from_secs(5);

/// How a node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long clients are still taken in and served after the node has said that it is not ready.
    pub grace: Duration,
    /// How long all clients may take to leave after that.
    pub timeout: Duration,
}

impl DrainSettings {
    /// Over what time clients are told to leave: the last ones need some of the time-out to do so.
    #[must_use]
    pub fn spread(self) -> Duration {
        self.timeout.saturating_sub(LEAVING.min(self.timeout / 4))
    }
}

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    /// How long a node that was told to stop goes on taking clients in, in seconds. `/readyz` answers 503 meanwhile, so
    /// that load balancers turn away before clients are refused: give a little more than they need to notice.
    #[arg(long, env = "TRUNKLINE_DRAIN_GRACE", value_name = "SECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub drain_grace: u64,

    /// How long clients may take to leave when the node stops, in seconds. They are told one after the other, spread
    /// evenly over most of it, so that they don't all connect elsewhere at once.
    #[arg(long, env = "TRUNKLINE_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub drain_timeout: u64,
}

#[cfg(feature = "cli")]
impl DrainArgs {
    pub(super) fn settings(&self) -> DrainSettings {
        DrainSettings { grace: Duration::from_secs(self.drain_grace), timeout: Duration::from_secs(self.drain_timeout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_clients_have_some_time_to_leave() {
        let spread = |seconds| DrainSettings { grace: Duration::ZERO, timeout: Duration::from_secs(seconds) }.spread();
        assert_eq!(spread(30), Duration::from_secs(25));
        assert_eq!(spread(4), Duration::from_secs(3));
        assert_eq!(spread(0), Duration::ZERO);
    }
}
