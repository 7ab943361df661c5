//! Flags of upstreams whose name has several addresses.

use clap::Args;

#[derive(Debug, Clone, Args)]
pub(crate) struct DiscoveryArgs {
    /// How often the names of upstreams are resolved again, in seconds: each address is an app server of its own. Host
    /// header and TLS server name stay the name's. 0: a name is one app server, whichever address answers.
    #[arg(long, env = "TRUNKLINE_RESOLVE_INTERVAL", value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub resolve_interval: u64,
}
