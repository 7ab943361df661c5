//! How many at once from one address. The table is as long as there are addresses with something open.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tables, so that shards seldom meet at a lock.
const TABLES: usize = 16;

/// An address as limits know it: somebody with IPv6 has a /64 at least, so that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Key {
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

/// A table by address, in several parts with a lock each.
#[derive(Debug)]
pub(super) struct Table<T> {
    hasher: RandomState,
    parts: [Mutex<HashMap<Key, T>>; TABLES],
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<T> Table<T> {
    /// The part in which an address stands, locked.
    pub(super) fn part(&self, key: Key) -> MutexGuard<'_, HashMap<Key, T>> {
        let [first, rest @ ..] = &self.parts;
        let place = usize::try_from(self.hasher.hash_one(key) % TABLES as u64).unwrap_or_default();
        let part = place.checked_sub(1).and_then(|place| rest.get(place)).unwrap_or(first);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many are open, by address.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: NonZeroU32,
    open: Table<u32>,
}

/// A place of an address; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    key: Key,
}

impl Addresses {
    /// Each address may have so `most`.
    #[must_use]
    pub(crate) fn new(most: NonZeroU32) -> Self {
        Self { most, open: Table::default() }
    }

    /// A place for one more of this address; `None` when it has all it may have.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let key = Key::from(ip);
        let mut part = self.open.part(key);
        let open = part.entry(key).or_default();
        if *open >= self.most.get() {
            return None;
        }
        *open += 1;
        Some(Seat { addresses: self.clone(), key })
    }
}

impl Drop for Seat {
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
    fn an_address_has_so_many_places_and_others_have_their_own() {
        let addresses = Arc::new(Addresses::new(NonZeroU32::new(2).unwrap()));
        let seats = [addresses.take(ip("10.0.0.1")), addresses.take(ip("::ffff:10.0.0.1"))];
        assert!(seats.iter().all(Option::is_some));
        assert!(addresses.take(ip("10.0.0.1")).is_none());
        assert!(addresses.take(ip("10.0.0.2")).is_some());
        drop(seats);
        assert!(addresses.take(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(Key::from(ip("2001:db8:0:1::7")), Key::from(ip("2001:db8:0:1:ffff::9")));
        assert_ne!(Key::from(ip("2001:db8:0:1::7")), Key::from(ip("2001:db8:0:2::7")));
    }

    #[test]
    fn who_has_nothing_open_takes_no_memory() {
        let addresses = Arc::new(Addresses::new(NonZeroU32::MIN));
        for number in 0..1000 {
            drop(addresses.take(IpAddr::V4(number.into())));
        }
        assert!(addresses.open.parts.iter().all(|part| part.lock().unwrap().is_empty()));
    }
}
