//! Flags for clients that have lost their app server.

use clap::Args;
use trunkline_proxy::parts::RehomeSettings;

use super::value_parser::{seconds_text, whole_seconds};

#[derive(Debug, Clone, Args)]
pub(crate) struct RehomeArgs {
    /// How long clients are held while no app server is there; then they are told to connect again. What
    /// they send meanwhile waits in their sockets. 0: they are told so within a second. A hub that no app server has
    /// named for this long is forgotten, if there are app servers with others.
    #[arg(long, env = "TRUNKLINE_HOLD_TIMEOUT", value_name = "SECONDS",
          default_value = seconds_text(RehomeSettings::DEFAULT.hold_timeout_s),
          value_parser = whole_seconds::<u32>(0..=86_400))]
    pub hold_timeout: u32,

    /// Also holds clients that come while no app server of a known hub is there; else they get 503 and `Retry-After`,
    /// unless a link was lost a moment ago: then they wait for its return, as long as for a hub handshake.
    #[arg(long, env = "TRUNKLINE_HOLD_NEW")]
    pub hold_new: bool,

    /// Calls of one client that may wait for their answers before it is read no further: they are remembered, so that
    /// each gets an error when its app server is gone.
    #[arg(long, env = "TRUNKLINE_PENDING_CALLS_MAX", value_name = "N",
          default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pending_calls_max: u32,

    /// Clients that this node gives in a second, one by one and between their calls, to an app server that has come and
    /// has fewer than its share, as after its restart. 0: clients stay where they are until their app server stops.
    #[arg(long, env = "TRUNKLINE_APP_REBALANCE_RATE", value_name = "CLIENTS",
          default_value_t = RehomeSettings::DEFAULT.app_rebalance_per_s,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub app_rebalance_rate: u32,
}

impl From<&RehomeArgs> for RehomeSettings {
    fn from(args: &RehomeArgs) -> Self {
        Self {
            hold_timeout_s: args.hold_timeout,
            holds_new: args.hold_new,
            pending_calls_max: usize::try_from(args.pending_calls_max).unwrap_or(usize::MAX),
            app_rebalance_per_s: args.app_rebalance_rate,
        }
    }
}
