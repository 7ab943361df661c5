//! Servers under test: the arguments of `-s`, validated and resolved.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail, ensure};
use http::Uri;

/// Maximum sockets per source address. It has ports for five times as many, but the system's search takes longer the
/// more are used: 16 µs per connect at 5 000, 550 µs at 9 500.
const SOCKETS_PER_SOURCE: usize = 5_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Authority for requests, as `host:port`.
    pub(crate) authority: String,
    /// Path of the hub with an optional query.
    pub(crate) path: String,
    pub(crate) address: SocketAddr,
}

impl Target {
    /// Parses a URL, `host:port`, or a local port. The default path is `hub`.
    pub(crate) fn parse(text: &str, hub: &str) -> Result<Self> {
        let whole = match text {
            port if port.parse::<u16>().is_ok() => format!("http://127.0.0.1:{port}"),
            url if url.contains("://") => url.to_owned(),
            bare => format!("http://{bare}"),
        };
        let uri: Uri = whole.parse().with_context(|| format!("--server {text} is no URL"))?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => bail!("--server {text}: TLS is not spoken yet; use the plain port behind it"),
            other => bail!("--server {text}: the scheme {:?} is not known", other.unwrap_or("")),
        }
        let host = uri.host().with_context(|| format!("--server {text} names no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        ensure!(hub.starts_with('/'), "--hub {hub} must begin with a slash");
        let path = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("" | "/") => hub.to_owned(),
            Some(path) => path.to_owned(),
        };
        Ok(Self { authority: format!("{host}:{port}"), path, address: look_up(host, port)? })
    }

    /// Source address of a client, given the number of earlier sockets to the server; `None` lets the system choose.
    ///
    /// On loopback all of 127.0.0.0/8 is available, and each address has its own ports.
    pub(crate) fn source(&self, sockets: usize) -> Option<IpAddr> {
        let block = sockets / SOCKETS_PER_SOURCE;
        if !cfg!(target_os = "linux") || block == 0 || !self.address.ip().is_loopback() || self.address.is_ipv6() {
            return None;
        }
        let block = u16::try_from(block).unwrap_or(u16::MAX).to_be_bytes();
        let [high, low] = block;
        Some(Ipv4Addr::new(127, 1, high, low).into())
    }
}

fn look_up(host: &str, port: u16) -> Result<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, port).to_socket_addrs().with_context(|| format!("looking up {host}"))?;
    let mut all: Vec<SocketAddr> = found.collect();
    // Only IPv4 has several loopback addresses.
    all.sort_by_key(SocketAddr::is_ipv6);
    all.into_iter().next().with_context(|| format!("{host} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Target {
        Target::parse(text, "/bench").unwrap()
    }

    #[test]
    fn a_number_is_a_port_of_this_machine() {
        let target = parsed("8080");
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/bench"));
    }

    #[test]
    fn a_path_of_its_own_is_kept_and_a_missing_one_is_the_hub() {
        assert_eq!(parsed("http://127.0.0.1:81/chat?x=1").path, "/chat?x=1");
        assert_eq!(parsed("ws://127.0.0.1:81/").path, "/bench");
        assert_eq!(parsed("127.0.0.1:81").path, "/bench");
    }

    #[test]
    fn tls_is_refused_with_the_reason() {
        let error = Target::parse("https://127.0.0.1", "/bench").unwrap_err();
        assert!(error.to_string().contains("TLS"));
    }

    #[test]
    fn thousands_of_sockets_share_no_port_on_loopback() {
        let target = parsed("8080");
        assert_eq!(target.source(4_999), None);
        if cfg!(target_os = "linux") {
            assert_eq!(target.source(5_000), Some("127.1.0.1".parse().unwrap()));
            assert_eq!(target.source(14_999), Some("127.1.0.2".parse().unwrap()));
        }
    }
}
