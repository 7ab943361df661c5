//! Where other nodes reach this one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use http::uri::Authority;

/// An address that is nobody's (TEST-NET-1): the way to it is the way to everywhere.
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Other nodes can't use what was given.
#[derive(Debug, thiserror::Error)]
#[error(
    "--advertise {value:?} {problem}: give a host and a port at which other nodes reach this one, like 10.0.0.7:8080"
)]
pub struct AdvertiseError {
    /// What was given.
    pub value: String,
    /// What is wrong.
    pub problem: &'static str,
}

/// What was given, else the listen address; for a wildcard, the local address from which an upstream is reached.
pub(super) fn advertise(
    given: Option<String>,
    listen: SocketAddr,
    upstreams: &[String],
) -> Result<String, AdvertiseError> {
    let Some(given) = given else {
        return Ok(SocketAddr::new(own_ip(listen.ip(), upstreams), listen.port()).to_string());
    };
    match given.parse::<Authority>() {
        Err(_) => Err(AdvertiseError { value: given, problem: "is no address" }),
        Ok(authority) if authority.port_u16().is_none() => Err(AdvertiseError { value: given, problem: "has no port" }),
        Ok(_) if given.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) => {
            Err(AdvertiseError { value: given, problem: "is every address of a machine" })
        }
        Ok(_) => Ok(given),
    }
}

fn own_ip(listen: IpAddr, upstreams: &[String]) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    // An upstream's name may not be known yet; then the way to everywhere is the best guess.
    let near = upstreams.iter().find_map(local_ip_towards);
    near.or_else(|| local_ip_towards(ANYWHERE)).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// The system's choice of a local address for packets to `target`; none is sent.
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
        advertise(None, listen.parse().unwrap(), &[upstream.into()]).unwrap()
    }

    #[test]
    fn a_listen_address_is_advertised_as_it_is_and_a_wildcard_as_the_address_towards_the_upstream() {
        assert_eq!(by_default("127.0.0.9:8080", "127.0.0.1:5000"), "127.0.0.9:8080");
        assert_eq!(by_default("0.0.0.0:8080", "127.0.0.1:5000"), "127.0.0.1:8080");
        assert_eq!(by_default("[::]:8080", "127.0.0.1:5000"), "127.0.0.1:8080");
        assert!(!by_default("0.0.0.0:8080", "name.that.is.not.known.invalid:80").starts_with("0.0.0.0"));
    }

    #[test]
    fn what_other_nodes_cant_use_is_refused_with_its_flag() {
        for wrong in ["no address", "host", "0.0.0.0:80", "[::]:80", "host:99999"] {
            let error = advertise(Some(wrong.into()), "127.0.0.1:1".parse().unwrap(), &[]).unwrap_err().to_string();
            assert!(error.starts_with("--advertise"), "{error}");
        }
        let given = advertise(Some("node-1.fleet:8080".into()), "0.0.0.0:1".parse().unwrap(), &[]);
        assert_eq!(given.unwrap(), "node-1.fleet:8080");
    }
}
