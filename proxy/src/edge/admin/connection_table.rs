//! Connections of the admin port: limited in total and per address, with priority for new ones.
//!
//! ```text
//!  accepted ─► waits for a request ─► request in flight ─► response being sent ─► waits …
//!                 ▲ displaced first       ▲ second              ▲ never
//! ```
//!
//! Probes send their request immediately after connecting. A full table therefore closes the longest waiting
//! connection, so that incomplete heads only affect their senders.

use std::net::IpAddr;

use tokio::time::Instant;

use crate::ground::bounded::{Lease, LeaseTable, Leases};

/// Maximum number of connections to the admin port.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// Maximum number of connections per address. This leaves room for other addresses, and suffices for a browser with
/// several pages.
pub(super) const PER_ADDRESS_MAX: usize = 64;

/// Phase of a connection, in order of displacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Waiting for the first or next request.
    Waiting,
    /// A request is in flight, possibly without its body.
    Asking,
    /// The response has begun, possibly an event stream.
    Answering,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTable(Leases<AdminConnection>);

#[derive(Debug)]
pub(super) struct AdminConnection {
    address: IpAddr,
    phase: Phase,
    since: Instant,
}

/// Permit of one connection, returned on drop.
pub(super) type ConnectionPermit = Lease<AdminConnection>;

impl ConnectionTable {
    /// Takes a permit for a new connection, displacing another if needed. `None` if none can be displaced.
    pub(super) fn take(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let address = address.to_canonical();
        let new = AdminConnection { address, phase: Phase::Waiting, since: Instant::now() };
        let is_of_address = |open: &AdminConnection| open.address == address;
        let of_address = self.0.lock().iter().filter(|(_, open)| is_of_address(open)).count();
        match of_address >= PER_ADDRESS_MAX {
            true => self.0.take_or_revoke(0, new, |connections, _| least_needed(connections, is_of_address)),
            false => self.0.take_or_revoke(CONNECTIONS_MAX, new, |connections, _| least_needed(connections, |_| true)),
        }
    }
}

/// The connection to displace first; `None` if all are sending responses.
fn least_needed(connections: &LeaseTable<AdminConnection>, of: impl Fn(&AdminConnection) -> bool) -> Option<u64> {
    let candidates = connections.iter().filter(|(_, open)| open.phase != Phase::Answering && of(open));
    candidates.min_by_key(|(_, open)| (open.phase, open.since)).map(|(number, _)| number)
}

impl ConnectionPermit {
    pub(super) fn enter(&self, phase: Phase) {
        self.update(|open| (open.phase, open.since) = (phase, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn is_displaced(place: &ConnectionPermit) -> bool {
        place.token().is_cancelled()
    }

    #[test]
    fn of_a_thousand_half_sent_heads_of_one_address_the_oldest_go_and_others_keep_their_places() {
        let table = ConnectionTable::default();
        let other = table.take(ip(1)).unwrap();
        let permits: Vec<_> = (0..1_000).map(|_| table.take(ip(7)).unwrap()).collect();
        let left: Vec<_> =
            permits.iter().enumerate().filter(|(_, place)| !is_displaced(place)).map(|(at, _)| at).collect();
        assert_eq!(left, (1_000 - PER_ADDRESS_MAX..1_000).collect::<Vec<_>>());
        assert!(!is_displaced(&other));
    }

    #[test]
    fn of_many_addresses_the_one_that_has_waited_longest_makes_room() {
        let table = ConnectionTable::default();
        let permits: Vec<_> = (0..1_000).map(|number| table.take(ip(number)).unwrap()).collect();
        assert_eq!(permits.iter().filter(|place| !is_displaced(place)).count(), CONNECTIONS_MAX);
        drop(permits);
        assert!(table.0.lock().len() == 0);
    }

    #[test]
    fn answers_are_never_displaced_and_requests_only_when_nothing_waits() {
        let table = ConnectionTable::default();
        let permits: Vec<_> = (0..PER_ADDRESS_MAX).map(|_| table.take(ip(7)).unwrap()).collect();
        permits.iter().for_each(|place| place.enter(Phase::Answering));
        assert!(table.take(ip(7)).is_none());
        assert!(table.take(ip(8)).is_some(), "others have room");
        permits[5].enter(Phase::Asking);
        permits[9].enter(Phase::Waiting);
        let new = table.take(ip(7)).unwrap();
        new.enter(Phase::Answering);
        assert!(is_displaced(&permits[9]) && !is_displaced(&permits[5]));
        assert!(table.take(ip(7)).is_some() && is_displaced(&permits[5]));
    }
}
