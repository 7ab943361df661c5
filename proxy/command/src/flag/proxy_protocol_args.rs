//! Flags of the PROXY protocol.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use trunkline_proxy::parts::{ProxyProtocolSettings, TrustedNetworks};

use super::value_parser::seconds;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProxyProtocolArgs {
    /// Load balancers of --trust begin each connection with a PROXY protocol header (version 1 or 2) with the client's
    /// address. Their connections without the header are refused, and so are connections with the header from other
    /// addresses.
    #[arg(long, env = "TRUNKLINE_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// Time limit for a PROXY protocol header.
    #[arg(long, env = "TRUNKLINE_PROXY_PROTOCOL_TIMEOUT", value_name = "SECONDS", default_value = "5s",
          value_parser = seconds(1..=300))]
    pub proxy_protocol_timeout: Duration,
}

impl ProxyProtocolArgs {
    /// Returns the settings, or `None` if the PROXY protocol is off. Fails if it is on but `--trust` is empty.
    pub(super) fn settings(&self, trusted: &TrustedNetworks) -> anyhow::Result<Option<ProxyProtocolSettings>> {
        match (self.proxy_protocol, trusted.is_empty()) {
            (false, _) => Ok(None),
            (true, true) => bail!("--proxy-protocol needs --trust with the addresses of the load balancers"),
            (true, false) => {
                let timeout = self.proxy_protocol_timeout;
                Ok(Some(ProxyProtocolSettings { from: trusted.clone(), timeout }))
            }
        }
    }
}
