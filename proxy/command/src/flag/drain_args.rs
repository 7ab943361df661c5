//! Flags of a graceful stop.

use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::DrainSettings;

use super::value_parser::seconds;

#[derive(Debug, Clone, Args)]
pub(crate) struct DrainArgs {
    /// How long a node that was told to stop goes on taking clients in. `/readyz` answers 503 meanwhile, so
    /// that load balancers turn away before clients are refused: give a little more than they need to notice.
    /// Answers end their connections meanwhile.
    #[arg(long, env = "TRUNKLINE_DRAIN_GRACE", value_name = "SECONDS", default_value = "0s",
          value_parser = seconds(0..=3600))]
    pub drain_grace: Duration,

    /// How long clients may take to leave when the node stops. They are told one after the other, spread
    /// evenly over most of it, so that they don't all connect elsewhere at once, and each between its calls.
    #[arg(long, env = "TRUNKLINE_DRAIN_TIMEOUT", value_name = "SECONDS", default_value = "30s",
          value_parser = seconds(0..=3600))]
    pub drain_timeout: Duration,
}

impl From<&DrainArgs> for DrainSettings {
    fn from(args: &DrainArgs) -> Self {
        Self { grace: args.drain_grace, timeout: args.drain_timeout }
    }
}
