//! Flags of upstreams whose name has several addresses.

use std::time::Duration;

use clap::Args;

use super::value_parser::seconds;

#[derive(Debug, Clone, Args)]
pub(crate) struct DiscoveryArgs {
    /// How often the names of upstreams are resolved again: each address is an app server of its own. Host
    /// header and TLS server name stay the name's. 0: a name is one app server, whichever address answers.
    #[arg(long, env = "TRUNKLINE_RESOLVE_INTERVAL", value_name = "SECONDS", default_value = "5s", value_parser = seconds(0..=3600))]
    pub resolve_interval: Duration,
}
