//! The PROXY protocol: whether load balancers tell client addresses in front of each connection.

use std::time::Duration;

use super::Trusted;

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ProxyProtocolArgs {
    /// The load balancers of --trust begin each connection with a PROXY protocol header (version 1 or 2) that tells the
    /// client's address. From them a connection without one is refused; from all others one with it is.
    #[arg(long, env = "TRUNKLINE_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// How long a PROXY protocol header may take, in seconds.
    #[arg(long, env = "TRUNKLINE_PROXY_PROTOCOL_TIMEOUT", value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=300))]
    pub proxy_protocol_timeout: u64,
}

/// From whom PROXY protocol headers are taken.
#[derive(Debug, Clone)]
pub struct ProxyProtocol {
    /// Whose connections begin with one.
    pub from: Trusted,
    /// How long one may take.
    pub timeout: Duration,
}

/// It is on, but nobody may use it.
#[cfg(feature = "cli")]
#[derive(Debug, thiserror::Error)]
#[error("--proxy-protocol needs --trust with the addresses of the load balancers that send its headers")]
pub struct NobodyTrusted;

#[cfg(feature = "cli")]
impl ProxyProtocolArgs {
    /// Checks what was typed.
    ///
    /// # Errors
    /// When it is on and nobody is trusted.
    pub fn check(&self, trusted: &Trusted) -> Result<Option<ProxyProtocol>, NobodyTrusted> {
        match (self.proxy_protocol, trusted.is_empty()) {
            (false, _) => Ok(None),
            (true, true) => Err(NobodyTrusted),
            (true, false) => {
                let timeout = Duration::from_secs(self.proxy_protocol_timeout);
                Ok(Some(ProxyProtocol { from: trusted.clone(), timeout }))
            }
        }
    }
}
