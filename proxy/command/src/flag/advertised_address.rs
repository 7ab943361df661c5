//! Value of `--advertise`: the address under which other nodes reach this one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::anyhow;
use trunkline_proxy::parts::{Address, shown_url};

/// Unassigned address (TEST-NET-1), reached by the default route.
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Returns the configured or the listen address. A local address that faces an upstream replaces a wildcard.
pub(super) fn advertised_address(
    given: Option<String>,
    listen: SocketAddr,
    upstreams: &[Address],
) -> anyhow::Result<Address> {
    let value = given.unwrap_or_else(|| SocketAddr::new(own_ip(listen.ip(), upstreams), listen.port()).to_string());
    read(&value).map_err(|problem| {
        anyhow!(
            "--advertise {:?} {problem}: give an address at which other nodes reach this node, such as 10.0.0.7:8080, \
             [fd00::7]:8080 or https://node-1:8443",
            shown_url(&value)
        )
    })
}

fn read(value: &str) -> Result<Address, &'static str> {
    let (scheme, authority) = value.split_once("://").unwrap_or(("http", value));
    // Templates put brackets around addresses of any family, such as `[$(POD_IP)]:8080`.
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let of_ipv4 = bracketed.filter(|(host, _)| host.parse::<Ipv4Addr>().is_ok());
    let authority = &of_ipv4.map_or_else(|| authority.to_owned(), |(host, port)| format!("{host}{port}"));
    let address: Address = format!("{scheme}://{authority}").parse()?;
    if address.authority() != authority {
        return Err("has no port");
    }
    let is_wildcard = authority.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    if is_wildcard { Err("is a wildcard address") } else { Ok(address) }
}

fn own_ip(listen: IpAddr, upstreams: &[Address]) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    // An upstream's name may not resolve yet; then the default route is the best guess.
    let near = upstreams.iter().find_map(|upstream| local_ip_towards(upstream.authority()));
    near.or_else(|| local_ip_towards(ANYWHERE)).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Returns the local address that the system would choose for packets to `target`, without sending any.
fn local_ip_towards(target: impl ToSocketAddrs) -> Option<IpAddr> {
    target.to_socket_addrs().ok()?.find_map(|target| {
        let any: IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_default(listen: &str, upstream: &str) -> String {
        let upstream = format!("http://{upstream}").parse().unwrap();
        advertised_address(None, listen.parse().unwrap(), &[upstream]).unwrap().authority().to_owned()
    }

    #[test]
    fn a_listen_address_is_advertised_as_it_is_and_a_wildcard_as_the_address_towards_the_upstream() {
        assert_eq!(by_default("127.0.0.9:8080", "127.0.0.1:5000"), "127.0.0.9:8080");
        assert_eq!(by_default("0.0.0.0:8080", "127.0.0.1:5000"), "127.0.0.1:8080");
        assert_eq!(by_default("[::]:8080", "127.0.0.1:5000"), "127.0.0.1:8080");
        assert!(!by_default("0.0.0.0:8080", "name.that.is.not.known.invalid:80").starts_with("0.0.0.0"));
    }

    #[test]
    fn an_address_that_other_nodes_cant_use_is_refused_with_its_flag() {
        for wrong in
            ["no address", "host", "0.0.0.0:80", "[::]:80", "host:99999", "https://host", "ftp://host:80", "fd77::2:80"]
        {
            let error =
                advertised_address(Some(wrong.into()), "127.0.0.1:1".parse().unwrap(), &[]).unwrap_err().to_string();
            assert!(error.starts_with("--advertise"), "{error}");
        }
        for (given, shown) in [
            ("node-1.fleet:8080", "http://node-1.fleet:8080"),
            ("https://node-1:8443", "https://node-1:8443"),
            ("[10.0.0.7]:8080", "http://10.0.0.7:8080"),
            ("[fd77::2]:8080", "http://[fd77::2]:8080"),
        ] {
            let address = advertised_address(Some(given.into()), "0.0.0.0:1".parse().unwrap(), &[]).unwrap();
            assert_eq!(address.to_string(), shown);
        }
    }
}
