//! Addresses of HTTP servers: app servers, other nodes, token issuers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use ipnet::IpNet;

use super::endpoints::{AlternativeEndpoint, Endpoints};
use super::node_port::NodePort;

const EXAMPLE: &str = "is not a URL such as http://127.0.0.1:5000 or https://app.example";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    Plain,
    Tls,
    /// The start of a node, reached through a broker. Its messages are sealed.
    Broker,
}

/// Host and port of a server, and whether to use TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    security: Security,
    authority: Arc<str>,
    at: Option<Endpoints>,
    start: Option<Arc<str>>,
}

impl Address {
    /// Whether the server uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.security == Security::Tls
    }

    /// Pins the socket address, one that the name resolves to. Requests still carry the host name.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { at: Some(Endpoints::new(address)), ..self.clone() }
    }

    /// Address of a node's port through a broker.
    pub(crate) fn of_node(boot: &str, port: NodePort) -> Self {
        let authority = format!("{}:0", port.host_of(boot)).into();
        Self { security: Security::Broker, authority, at: None, start: None }
    }

    /// Boot id and port of a node behind a broker; `None` for an address in the network.
    pub(crate) fn node(&self) -> Option<(&str, NodePort)> {
        if self.security == Security::Broker { NodePort::from_host(self.host()) } else { None }
    }

    /// Address that another node has given for itself. `None` if it is malformed.
    pub(crate) fn of_other_node(url: &str) -> Option<Self> {
        let host = url.strip_prefix("nats://").and_then(|rest| rest.strip_suffix(":0"));
        match host {
            Some(host) => NodePort::from_host(host).map(|(boot, port)| Self::of_node(boot, port)),
            None => url.parse().ok(),
        }
    }

    /// Sets the boot id of the expected node. Pooled connections and failures of another start are then not shared.
    pub(crate) fn of_start(&self, boot: &str) -> Self {
        Self { start: Some(boot.into()), ..self.clone() }
    }

    /// Returns the pinned socket address, if any.
    #[must_use]
    pub fn resolved(&self) -> Option<SocketAddr> {
        self.at.as_ref().map(|at| at.found_at)
    }

    /// Returns the pinned socket addresses to dial, if any. One that accepts is enough.
    pub(crate) fn endpoints(&self) -> Option<Vec<SocketAddr>> {
        self.at.as_ref().map(Endpoints::dialled)
    }

    /// Whether another socket address also leads to the server.
    pub(crate) fn has_alternative(&self) -> bool {
        self.at.as_ref().is_some_and(Endpoints::has_alternative)
    }

    /// Adds another socket address of the same server, until the returned guard is dropped.
    pub(crate) fn also_at(&self, other: &Self) -> Option<AlternativeEndpoint> {
        self.at.as_ref()?.add(other.resolved()?)
    }

    /// Whether the server is still listed: its pinned address, or an alternative. An address without one always is.
    pub(crate) fn is_listed(&self) -> bool {
        self.at.as_ref().is_none_or(Endpoints::is_listed)
    }

    /// Sets whether the pinned address is still listed for the server. If not, only alternatives are dialled.
    pub(crate) fn set_listed(&self, is_listed: bool) {
        if let Some(endpoints) = &self.at {
            endpoints.set_listed(is_listed);
        }
    }

    /// Returns `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the host without brackets, as certificates name it.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Port of the server, present in every address.
    pub(crate) fn port(&self) -> Option<u16> {
        self.authority.rsplit_once(':')?.1.parse().ok()
    }

    fn scheme(&self) -> &'static str {
        match self.security {
            Security::Plain => "http",
            Security::Tls => "https",
            Security::Broker => "nats",
        }
    }

    /// Whether the address denotes a single server regardless of DNS: an IP address, this machine, or a node behind a
    /// broker.
    #[must_use]
    pub fn is_one_server(&self) -> bool {
        self.security == Security::Broker || self.is_loopback() || self.host().parse::<std::net::IpAddr>().is_ok()
    }

    /// Whether the host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.authority)
    }
}

/// Returns a URL, or a setting with one, as texts and logs may show it: the part before an `@` may be a password, and a
/// query a key.
#[must_use]
pub fn shown_url(text: &str) -> String {
    let (before, rest) = text.split_once("://").map_or(("", text), |(before, rest)| (&text[..before.len() + 3], rest));
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    match rest.split_once(['?', '#']) {
        Some((rest, _)) => format!("{before}{hidden}{rest}?…"),
        None => format!("{before}{hidden}{rest}"),
    }
}

impl FromStr for Address {
    type Err = &'static str;

    /// Parses `http://host:port` or `https://host:port`. The error text is worded to follow the input.
    fn from_str(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| EXAMPLE)?;
        if security_of(&uri).is_none() {
            return Err(EXAMPLE);
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("has a path: give only scheme, host and port");
        }
        Self::try_from(&uri)
    }
}

impl TryFrom<&Uri> for Address {
    type Error = &'static str;

    /// Extracts the server from a URI. The error text is worded to follow the URI.
    fn try_from(uri: &Uri) -> Result<Self, &'static str> {
        let (security, usual_port) = security_of(uri).ok_or(EXAMPLE)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("has a user name, which would not be sent: leave out what stands before the `@`");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let authority: Arc<str> = format!("{host}:{}", uri.port_u16().unwrap_or(usual_port)).into();
        let at = authority.parse().ok().map(Endpoints::new);
        Ok(Self { security, authority, at, start: None })
    }
}

/// Returns security and default port of a URI's scheme.
fn security_of(uri: &Uri) -> Option<(Security, u16)> {
    match uri.scheme_str()? {
        "http" => Some((Security::Plain, 80)),
        "https" => Some((Security::Tls, 443)),
        _ => None,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)?;
        match self.resolved().filter(|at| Ok(*at) != self.authority.parse()) {
            Some(at) => write!(f, " ({at})"),
            None => Ok(()),
        }
    }
}

/// Whether a `host`, `host:port` or `[host]:port` is this machine, without a DNS lookup.
#[must_use]
pub fn is_loopback_host(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        _ if authority.parse::<std::net::Ipv6Addr>().is_ok() => authority,
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Parses a network such as `10.0.0.0/8`, or a single address.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    text.parse().or_else(|_| alone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_security() {
        for (url, shown, host) in [
            ("http://app:5000", "http://app:5000", "app"),
            ("http://app/", "http://app:80", "app"),
            ("https://app.example", "https://app.example:443", "app.example"),
            ("https://[2001:db8::1]:5000", "https://[2001:db8::1]:5000", "2001:db8::1"),
            ("http://[::1]", "http://[::1]:80", "::1"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.host()), (shown, host));
            assert_eq!(address.is_tls(), url.starts_with("https"));
            let at = address.at(([10, 0, 0, 1], 5000).into());
            assert_eq!((at.authority(), at.to_string()), (address.authority(), format!("{shown} (10.0.0.1:5000)")));
        }
    }

    #[test]
    fn a_node_behind_a_broker_has_an_address_that_only_nodes_give() {
        let address = Address::of_node("Boot_-1", NodePort::Clients);
        assert_eq!((address.node(), address.is_one_server()), (Some(("Boot_-1", NodePort::Clients)), true));
        let url = address.to_string();
        assert_eq!((&*url, Address::of_other_node(&url)), ("nats://clients.Boot_-1:0", Some(address)));
        assert!(url.parse::<Address>().is_err(), "operators name servers");
        for url in ["nats://rest.b:0", "nats://clients.b", "nats://clients:0", ""] {
            assert_eq!(Address::of_other_node(url), None, "{url}");
        }
        let plain = Address::of_other_node("http://a:1").unwrap();
        assert_eq!((plain.node(), plain.authority()), (None, "a:1"));
    }

    #[test]
    fn a_url_that_is_no_address_is_refused_with_the_reason() {
        for (url, reason) in [
            ("ftp://x", "is not a URL"),
            ("app:5000", "is not a URL"),
            ("http://::1:5000", "is not a URL"),
            ("http://x/path", "has a path"),
            ("http://x?q", "has a path"),
            ("http://me@x", "has a user name"),
        ] {
            let problem = url.parse::<Address>().unwrap_err();
            assert!(problem.starts_with(reason), "{url}: {problem}");
        }
    }

    #[test]
    fn loopback_hosts_are_known_by_name_and_by_number() {
        for host in ["localhost", "LOCALHOST:80", "127.8.9.1:5", "[::1]:80", "::1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1:80", "localhost.example.org"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_url_is_shown_without_passwords_and_keys() {
        for (text, shown) in [
            ("http://me:secret@a:1/x", "http://…@a:1/x"),
            ("chat=https://me:se/cr@et@a/x?code=secret", "chat=https://…@a/x?…"),
            ("https://a/keys#secret", "https://a/keys?…"),
            ("me:secret@a", "…@a"),
            ("http://a:1/{hub}", "http://a:1/{hub}"),
        ] {
            assert_eq!(shown_url(text), shown);
        }
    }
}
