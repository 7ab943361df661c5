//! Addresses of listening sockets in flags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::config_error::ConfigError;

/// Parses the address of a flag. A port alone means every address of this machine.
pub(super) fn socket_address(flag: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
    let failed = |reason| ConfigError::Address { flag, value: value.into(), reason };
    let none = || failed(std::io::ErrorKind::AddrNotAvailable.into());
    if let Some(port) = value.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(every_address(), port));
    }
    value.to_socket_addrs().map_err(failed)?.next().ok_or_else(none)
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
