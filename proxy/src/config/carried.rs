//! What is typed for connections that are carried by requests: Server-Sent Events and long polling.

use std::time::Duration;

use clap::Args;

use super::CarriedSettings;

/// Options for Server-Sent Events and long polling.
#[derive(Debug, Clone, Args)]
pub struct CarriedArgs {
    /// How long a poll waits for messages before it is answered empty, in seconds. Keep it below the time after which
    /// load balancers cut requests that are not answered.
    #[arg(long, env = "TRUNKLINE_POLL_TIMEOUT", value_name = "SECONDS",
          default_value_t = CarriedSettings::DEFAULT.poll_timeout.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub poll_timeout: u64,

    /// How long a client may stay away between two polls, or between its first POST and its first GET, before it is
    /// taken for gone, in seconds.
    #[arg(long, env = "TRUNKLINE_DISCONNECT_TIMEOUT", value_name = "SECONDS",
          default_value_t = CarriedSettings::DEFAULT.disconnect_timeout_s,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub disconnect_timeout: u32,
}

impl CarriedArgs {
    pub(super) fn settings(&self) -> CarriedSettings {
        CarriedSettings {
            poll_timeout: Duration::from_secs(self.poll_timeout),
            disconnect_timeout_s: self.disconnect_timeout,
        }
    }
}
