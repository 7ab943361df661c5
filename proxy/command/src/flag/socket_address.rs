//! Addresses of listening sockets in flags.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::anyhow;
use trunkline_proxy::parts::shown_url;

/// Parses the address of a flag. A port alone means every address of this machine.
pub(super) fn socket_address(flag: &str, value: &str) -> anyhow::Result<SocketAddr> {
    if let Some(port) = value.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(every_address(), port));
    }
    let found = value.to_socket_addrs();
    let first = found.and_then(|mut all| all.next().ok_or_else(|| ErrorKind::AddrNotAvailable.into()));
    first.map_err(|error| {
        anyhow!(
            "{flag} {:?} is not an address ({error}): write 127.0.0.1:8080 or node-1:8080, for example, or :8080 for \
             every address of this machine",
            shown_url(value)
        )
    })
}

/// Returns the wildcard for an omitted host: dual-stack, except on a machine without IPv6.
fn every_address() -> IpAddr {
    let has_ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_every_address_of_this_machine() {
        let address = socket_address("--listen", ":8080").unwrap();
        assert!(address.ip().is_unspecified() && address.port() == 8080, "{address}");
        assert!(socket_address("--listen", ":99999").is_err() && socket_address("--listen", ":").is_err());
    }
}
