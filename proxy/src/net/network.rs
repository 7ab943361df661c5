//! Networks of IP addresses, as options and rules name them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads a network like `10.0.0.0/8`, or a single address.
#[must_use]
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    text.parse().or_else(|_| alone()).ok()
}
