//! Settings of client listeners: TLS, PROXY protocol, HTTP transports, and the load balancers in front of them.

use std::net::IpAddr;
#[cfg(feature = "tls")]
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::option_group::settings;
use crate::ground::net::address::parse_network;
#[cfg(feature = "tls")]
use crate::ground::net::tls::IdentityFiles;

/// Settings of the TLS client listener.
#[cfg(feature = "tls")]
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Certificates with their keys; at least one.
    pub identities: Vec<IdentityFiles>,
    /// Timeout of the TLS handshake.
    pub handshake_timeout: Duration,
}

/// Whether other nodes may share the ports for clients and the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSharing {
    /// Startup fails if another process has the port.
    Alone,
    /// Nodes of one user share a port if all are configured to do so. The kernel distributes connections between them.
    WithNodes,
}

/// Settings of the PROXY protocol, with which load balancers send the client address at the start of each connection.
#[derive(Debug, Clone)]
pub struct ProxyProtocolSettings {
    /// Load balancers that send a PROXY header.
    pub from: TrustedNetworks,
    /// Timeout of the header.
    pub timeout: Duration,
}

settings! {
    /// Settings of server-sent events and long polling. Defaults are those of the official server.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct HttpTransportSettings {
        /// Time for which a poll waits for messages before it gets an empty response. Keep it below the timeout of
        /// load balancers for requests.
        #[flag("poll-timeout", Seconds(1..=3600))]
        pub poll_timeout: Duration = Duration::from_secs(90),

        /// Time between two polls after which a client counts as disconnected. After a POST, its first GET must arrive
        /// within at most five seconds. With stateful reconnect, time for which a client may be without a socket.
        #[flag("disconnect-timeout", WholeSeconds(1..=3600))]
        pub disconnect_timeout_s: u32 = 15,
    }
}

/// Addresses and networks of load balancers that may report client addresses; none by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedNetworks(Arc<[IpNet]>);

impl TrustedNetworks {
    /// Parses addresses and networks.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
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

fn network(text: &str) -> Result<IpNet, String> {
    let problem = || format!("{text:?} is neither an address like 10.1.2.3 or ::1 nor a network like 10.0.0.0/8");
    parse_network(text).ok_or_else(problem)
}

/// Header with which a load balancer describes a client.
///
/// A header is trustworthy only if the balancer sets it. Nearly all balancers set `X-Forwarded-For` and `-Proto`; many
/// pass other headers through from the client unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedHeader {
    /// `X-Forwarded-For`: address of the client.
    For,
    /// `X-Forwarded-Proto`: scheme of the client's request.
    Proto,
    /// `X-Forwarded-Host`: host of the client's request.
    Host,
    /// `X-Forwarded-Prefix`: path prefix removed by the balancer.
    Prefix,
    /// `Forwarded` (RFC 7239): address, scheme and host together.
    Forwarded,
}

impl TrustedHeader {
    /// All headers in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::For, Self::Proto, Self::Host, Self::Prefix, Self::Forwarded];

    /// Returns the name used in `--trust-headers`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::For => "for",
            Self::Proto => "proto",
            Self::Host => "host",
            Self::Prefix => "prefix",
            Self::Forwarded => "forwarded",
        }
    }

    /// Returns the header with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.name() == name)
    }
}

/// Headers accepted from trusted load balancers; `X-Forwarded-For` and `X-Forwarded-Proto` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedHeaders(Arc<[TrustedHeader]>);

impl Default for TrustedHeaders {
    fn default() -> Self {
        Self([TrustedHeader::For, TrustedHeader::Proto].into())
    }
}

impl TrustedHeaders {
    /// Checks a list of headers.
    ///
    /// # Errors
    /// If two headers overlap: a client could set the one that the load balancer does not overwrite.
    pub fn new(headers: &[TrustedHeader]) -> Result<Self, &'static str> {
        const AMBIGUOUS: &str = "has forwarded together with for, proto or host, which mean the same: a load balancer \
                                 writes one kind, and a client could forge the other. Use forwarded alone or with \
                                 prefix, or omit it";
        let same = [TrustedHeader::For, TrustedHeader::Proto, TrustedHeader::Host];
        let is_ambiguous = headers.contains(&TrustedHeader::Forwarded) && same.iter().any(|one| headers.contains(one));
        if is_ambiguous { Err(AMBIGUOUS) } else { Ok(Self(headers.into())) }
    }

    /// Returns whether a header is trusted.
    #[must_use]
    pub fn contains(&self, header: TrustedHeader) -> bool {
        self.0.contains(&header)
    }
}

/// Path prefix that a load balancer adds, stripped before paths are matched; none by default.
#[derive(Debug, Clone, Default)]
pub struct PathPrefix(Option<Arc<str>>);

impl PathPrefix {
    /// Checks a prefix. A trailing slash is ignored.
    ///
    /// # Errors
    /// If the text is not a path.
    pub fn new(text: &str) -> Result<Self, String> {
        let is_path =
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !is_path {
            return Err(format!("{text:?} is not a path like /realtime, with a leading slash and neither '?' nor '#'"));
        }
        let text = text.trim_end_matches('/');
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }

    /// Returns the path after the prefix, or `None` if the path does not start with the prefix. Case-insensitive, like
    /// hub paths.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let prefix = self.0.as_deref()?;
        let (head, rest) = path.split_at_checked(prefix.len())?;
        match (head.eq_ignore_ascii_case(prefix), rest) {
            (true, "") => Some("/"),
            (true, rest) if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }
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
            let problem = TrustedNetworks::parse([text]).unwrap_err();
            assert!(problem.starts_with(&format!("{text:?} is neither")), "{problem}");
        }
    }

    #[test]
    fn address_and_scheme_are_believed_by_default() {
        let believed = TrustedHeaders::default();
        assert!(believed.contains(TrustedHeader::For) && believed.contains(TrustedHeader::Proto));
        for header in [TrustedHeader::Host, TrustedHeader::Prefix, TrustedHeader::Forwarded] {
            assert!(!believed.contains(header), "{header:?}");
        }
    }

    #[test]
    fn the_standard_header_stands_for_itself() {
        assert!(TrustedHeaders::new(&[TrustedHeader::Forwarded, TrustedHeader::Prefix]).is_ok());
        for other in [TrustedHeader::For, TrustedHeader::Proto, TrustedHeader::Host] {
            assert!(TrustedHeaders::new(&[other, TrustedHeader::Forwarded]).is_err(), "{other:?}");
        }
    }

    #[test]
    fn only_whole_segments_are_stripped() {
        let prefix = PathPrefix::new("/realtime/").unwrap();
        assert_eq!(prefix.strip("/realtime/chat"), Some("/chat"));
        assert_eq!(prefix.strip("/RealTime"), Some("/"));
        for path in ["/realtimes/chat", "/chat", "/chat/realtime", "/"] {
            assert_eq!(prefix.strip(path), None, "{path}");
        }
        assert_eq!(PathPrefix::default().strip("/chat"), None);
        assert_eq!(PathPrefix::new("/").unwrap().strip("/chat"), None);
    }

    #[test]
    fn a_text_that_is_no_path_is_refused_with_its_value() {
        for text in ["realtime", "/a?b", "/a b", ""] {
            let problem = PathPrefix::new(text).unwrap_err();
            assert!(problem.starts_with(&format!("{text:?} is not a path")), "{problem}");
        }
    }
}
