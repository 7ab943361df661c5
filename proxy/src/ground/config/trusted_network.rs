//! Trusted networks: load balancers that may report client addresses.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::ground::net::address::parse_network;

/// Error of parsing an address or a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is neither an address like 10.1.2.3 or ::1 nor a network like 10.0.0.0/8")]
pub struct NetworkError {
    /// Rejected text of the network.
    pub value: String,
}

/// Trusted addresses and networks; none by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedNetworks(Arc<[IpNet]>);

impl TrustedNetworks {
    /// Parses addresses and networks.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        texts.into_iter().map(network).collect()
    }

    /// Returns whether an address is trusted. A dual-stack listener reports IPv4 addresses as `::ffff:a.b.c.d`.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Returns whether no network is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<IpNet> for TrustedNetworks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

fn network(text: &str) -> Result<IpNet, NetworkError> {
    parse_network(text).ok_or_else(|| NetworkError { value: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_given_networks_and_addresses_are_trusted() {
        let trusted = TrustedNetworks::parse(["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]).unwrap();
        for ip in ["10.255.0.1", "192.0.2.7", "fdff::1", "::1", "::ffff:10.1.1.1"] {
            assert!(trusted.contains(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["11.0.0.1", "192.0.2.8", "fe00::1", "::2", "::ffff:11.1.1.1", "127.0.0.1"] {
            assert!(!trusted.contains(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn nothing_is_trusted_by_default() {
        assert!(TrustedNetworks::default().is_empty());
        assert!(!TrustedNetworks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_text_that_is_no_address_is_refused_with_its_value() {
        for text in ["10.0.0.0/33", "balancer", "", "10.0.0"] {
            let problem = TrustedNetworks::parse([text]).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("{text:?} is neither")), "{problem}");
        }
    }
}
