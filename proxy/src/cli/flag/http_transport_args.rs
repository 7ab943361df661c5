//! Flags of the HTTP transports: server-sent events and long polling.

use std::time::Duration;

use clap::Args;

use crate::config::HttpTransportSettings;

#[derive(Debug, Clone, Args)]
pub(crate) struct HttpTransportArgs {
    /// How long a poll waits for messages before it is answered empty, in seconds. Keep it below the time after which
    /// load balancers cut requests that are not answered.
    #[arg(long, env = "TRUNKLINE_POLL_TIMEOUT", value_name = "SECONDS",
          default_value_t = HttpTransportSettings::DEFAULT.poll_timeout.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub poll_timeout: u64,

    /// How long a client may stay away between two polls before it is taken for gone, in seconds. After a POST its first
    /// GET has no more than five. With stateful reconnect, how long it may be without a socket.
    #[arg(long, env = "TRUNKLINE_DISCONNECT_TIMEOUT", value_name = "SECONDS",
          default_value_t = HttpTransportSettings::DEFAULT.disconnect_timeout_s,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub disconnect_timeout: u32,
}

impl From<&HttpTransportArgs> for HttpTransportSettings {
    fn from(args: &HttpTransportArgs) -> Self {
        Self { poll_timeout: Duration::from_secs(args.poll_timeout), disconnect_timeout_s: args.disconnect_timeout }
    }
}
