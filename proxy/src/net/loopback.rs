//! Loopback addresses by name or number.

use std::net::{IpAddr, Ipv6Addr};

/// Tells whether a `host`, `host:port` or `[host]:port` is this machine, without a DNS lookup.
#[must_use]
pub(crate) fn is_loopback_host(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        _ if authority.parse::<Ipv6Addr>().is_ok() => authority,
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known_by_name_and_by_number() {
        for host in ["localhost", "LOCALHOST:80", "127.8.9.1:5", "[::1]:80", "::1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1:80", "localhost.example.org"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
