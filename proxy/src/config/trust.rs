//! Trusted addresses: the load balancers whose word about a client's address is taken.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArgs {
    /// Addresses of the load balancers in front, such as `10.0.0.0/8` or `::1`, whose word about a client's address is
    /// taken. May be given several times.
    #[arg(long = "trust", env = "TRUNKLINE_TRUST", value_name = "CIDR", value_delimiter = ',')]
    pub trust: Vec<String>,
}

#[cfg(feature = "cli")]
impl TrustArgs {
    /// Checks what was typed.
    ///
    /// # Errors
    /// When something in the list is no address.
    pub fn check(&self) -> Result<Trusted, TrustError> {
        self.trust.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(network).collect()
    }
}

/// A trusted address is none.
#[derive(Debug, thiserror::Error)]
#[error("--trust {value:?} is neither an address like 10.1.2.3 or ::1 nor a network like 10.0.0.0/8")]
pub struct TrustError {
    /// What was given.
    pub value: String,
}

/// The addresses that are trusted; nobody unless told otherwise.
#[derive(Debug, Clone, Default)]
pub struct Trusted(Arc<[IpNet]>);

impl Trusted {
    /// Whether this address is one of them. On a listener for both families IPv4 addresses come as `::ffff:a.b.c.d`.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<IpNet> for Trusted {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl FromStr for Trusted {
    type Err = TrustError;

    /// One address or network.
    fn from_str(text: &str) -> Result<Self, TrustError> {
        network(text).map(|network| [network].into_iter().collect())
    }
}

fn network(text: &str) -> Result<IpNet, TrustError> {
    let alone = || text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    text.parse().or_else(|_| alone()).map_err(|_| TrustError { value: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(texts: &[&str]) -> Trusted {
        texts.iter().map(|text| network(text).unwrap()).collect()
    }

    #[test]
    fn networks_and_single_addresses_are_trusted_and_nobody_else() {
        let trusted = trusted(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]);
        for ip in ["10.255.0.1", "192.0.2.7", "fdff::1", "::1", "::ffff:10.1.1.1"] {
            assert!(trusted.contains(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["11.0.0.1", "192.0.2.8", "fe00::1", "::2", "::ffff:11.1.1.1", "127.0.0.1"] {
            assert!(!trusted.contains(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn by_default_nobody_is_trusted() {
        assert!(Trusted::default().is_empty());
        assert!(!Trusted::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["10.0.0.0/33", "balancer", "", "10.0.0"] {
            let problem = text.parse::<Trusted>().unwrap_err().to_string();
            assert!(problem.starts_with(&format!("--trust {text:?}")), "{problem}");
        }
    }
}
