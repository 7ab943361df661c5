//! Key of a client address in limit tables.

use std::net::IpAddr;

use crate::ground::bounded::Permit;

/// Address as counted by limits. An IPv6 /64, the smallest block that a client gets, counts as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AddressKey {
    V4(u32),
    V6(u64),
}

pub(crate) type AddressPermit = Permit<AddressKey>;

impl From<IpAddr> for AddressKey {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d].iter().fold(0, |bits, part| bits << 16 | u64::from(*part)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_mapped_address_counts_as_the_one_in_it() {
        assert_eq!(AddressKey::from(ip("10.0.0.1")), AddressKey::from(ip("::ffff:10.0.0.1")));
        assert_ne!(AddressKey::from(ip("10.0.0.1")), AddressKey::from(ip("10.0.0.2")));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        assert_eq!(AddressKey::from(ip("2001:db8:0:1::7")), AddressKey::from(ip("2001:db8:0:1:ffff::9")));
        assert_ne!(AddressKey::from(ip("2001:db8:0:1::7")), AddressKey::from(ip("2001:db8:0:2::7")));
    }
}
