//! Flags of a graceful stop.

use std::time::Duration;

use clap::Args;

use crate::config::DrainSettings;

#[derive(Debug, Clone, Args)]
pub(crate) struct DrainArgs {
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

impl From<&DrainArgs> for DrainSettings {
    fn from(args: &DrainArgs) -> Self {
        Self { grace: Duration::from_secs(args.drain_grace), timeout: Duration::from_secs(args.drain_timeout) }
    }
}
