//! Flags of the HTTP transports: server-sent events and long polling.

use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::HttpTransportSettings;

use super::value_parser::{seconds, seconds_text, whole_seconds};
use crate::quantity::duration_text;

#[derive(Debug, Clone, Args)]
pub(crate) struct HttpTransportArgs {
    /// How long a poll waits for messages before it is answered empty. Keep it below the time after which
    /// load balancers cut requests that are not answered.
    #[arg(long, env = "TRUNKLINE_POLL_TIMEOUT", value_name = "SECONDS",
          default_value = duration_text(HttpTransportSettings::DEFAULT.poll_timeout), value_parser = seconds(1..=3600))]
    pub poll_timeout: Duration,

    /// How long a client may stay away between two polls before it is taken for gone. After a POST its first
    /// GET has no more than five. With stateful reconnect, how long it may be without a socket.
    #[arg(long, env = "TRUNKLINE_DISCONNECT_TIMEOUT", value_name = "SECONDS",
          default_value = seconds_text(HttpTransportSettings::DEFAULT.disconnect_timeout_s), value_parser = whole_seconds::<u32>(1..=3600))]
    pub disconnect_timeout: u32,
}

impl From<&HttpTransportArgs> for HttpTransportSettings {
    fn from(args: &HttpTransportArgs) -> Self {
        Self { poll_timeout: args.poll_timeout, disconnect_timeout_s: args.disconnect_timeout }
    }
}
