//! Limit of what one address may have open at once. The table has an entry for each address with something open.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// AddressTables, so that shards seldom meet at a lock.
const PARTS: usize = 16;

/// Address as limits count it: a /64 of IPv6 counts as one, for that is the least that anybody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AddressKey {
    V4(u32),
    V6(u64),
}

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

impl AddressKey {
    /// First address of what counts as one.
    pub(super) fn network(self) -> IpAddr {
        match self {
            Self::V4(bits) => Ipv4Addr::from_bits(bits).into(),
            Self::V6(bits) => Ipv6Addr::from_bits(u128::from(bits) << 64).into(),
        }
    }
}

/// Table by address, in several parts with a lock each.
#[derive(Debug)]
pub(super) struct AddressTable<T> {
    hasher: RandomState,
    parts: [Mutex<HashMap<AddressKey, T>>; PARTS],
}

impl<T> Default for AddressTable<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<T> AddressTable<T> {
    /// Part of the table that holds an address, locked.
    pub(super) fn part(&self, key: AddressKey) -> MutexGuard<'_, HashMap<AddressKey, T>> {
        let [first, rest @ ..] = &self.parts;
        let place = usize::try_from(self.hasher.hash_one(key) % PARTS as u64).unwrap_or_default();
        let part = place.checked_sub(1).and_then(|place| rest.get(place)).unwrap_or(first);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of permits in use, by address, and their limit.
#[derive(Debug)]
pub(crate) struct AddressLimit {
    most: NonZeroU32,
    open: AddressTable<u32>,
}

/// Permit of an address; dropping it frees it.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    addresses: Arc<AddressLimit>,
    key: AddressKey,
}

impl AddressLimit {
    /// Limit of `most` permits per address.
    #[must_use]
    pub(crate) fn new(most: NonZeroU32) -> Self {
        Self { most, open: AddressTable::default() }
    }

    /// Permit for one more of this address; `None` at its limit.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<AddressPermit> {
        let key = AddressKey::from(ip);
        let mut part = self.open.part(key);
        let open = part.entry(key).or_default();
        if *open >= self.most.get() {
            return None;
        }
        *open += 1;
        Some(AddressPermit { addresses: self.clone(), key })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut part = self.addresses.open.part(self.key);
        if let Some(open) = part.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                part.remove(&self.key);
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
    fn each_address_has_its_own_permits() {
        let addresses = Arc::new(AddressLimit::new(NonZeroU32::new(2).unwrap()));
        let permits = [addresses.take(ip("10.0.0.1")), addresses.take(ip("::ffff:10.0.0.1"))];
        assert!(permits.iter().all(Option::is_some));
        assert!(addresses.take(ip("10.0.0.1")).is_none());
        assert!(addresses.take(ip("10.0.0.2")).is_some());
        drop(permits);
        assert!(addresses.take(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        assert_eq!(AddressKey::from(ip("2001:db8:0:1::7")), AddressKey::from(ip("2001:db8:0:1:ffff::9")));
        assert_ne!(AddressKey::from(ip("2001:db8:0:1::7")), AddressKey::from(ip("2001:db8:0:2::7")));
    }

    #[test]
    fn an_address_without_permits_takes_no_memory() {
        let addresses = Arc::new(AddressLimit::new(NonZeroU32::MIN));
        for number in 0..1000 {
            drop(addresses.take(IpAddr::V4(number.into())));
        }
        assert!(addresses.open.parts.iter().all(|part| part.lock().unwrap().is_empty()));
    }
}
