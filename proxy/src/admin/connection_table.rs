//! Connections of the admin port: bounded, overall and by address, and new ones are served first.
//!
//! ```text
//!  accepted ─► waits for a request ─► request under way ─► answer leaves ─► waits …
//!                 ▲ displaced first        ▲ then this          ▲ never
//! ```
//!
//! A probe asks as soon as it is connected. So when there is no room, the one that has waited longest makes it:
//! half-sent heads cost their sender a connection each, and nobody else an answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Maximum number of connections to the admin port.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// Maximum number of those of one address: others keep room, and a browser with a few pages needs no more.
pub(super) const PER_ADDRESS_MAX: usize = 64;

/// Phase of a connection, in the order in which connections are displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It waits for a request, its first or another one.
    Waiting,
    /// A request is under way; its body may be missing.
    Asking,
    /// The answer has begun, and may be an event stream.
    Answering,
}

/// Table of all connections to the admin port; its clones share one.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTable(Arc<Mutex<AdminConnections>>);

#[derive(Debug, Default)]
struct AdminConnections {
    open: HashMap<u64, Connection>,
    /// Counts connections and their phases, so that the lowest number is the oldest.
    last: u64,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    phase: Phase,
    /// Number of the change into this phase.
    since: u64,
    displaced: CancellationToken,
}

/// Place of one connection in the table; dropping it frees it.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    table: ConnectionTable,
    number: u64,
    displaced: CancellationToken,
}

impl ConnectionTable {
    /// Takes a place for a new connection; another one may be displaced for it. `None` if none can be.
    pub(super) fn take(&self, address: IpAddr) -> Option<ConnectionPlace> {
        let address = address.to_canonical();
        let mut connections = self.connections();
        let of_address = connections.open.values().filter(|open| open.address == address).count();
        if of_address >= PER_ADDRESS_MAX {
            connections.displace(|open| open.address == address)?;
        } else if connections.open.len() >= CONNECTIONS_MAX {
            connections.displace(|_| true)?;
        }
        let (number, displaced) = (connections.next(), CancellationToken::new());
        let open = Connection { address, phase: Phase::Waiting, since: number, displaced: displaced.clone() };
        connections.open.insert(number, open);
        Some(ConnectionPlace { table: self.clone(), number, displaced })
    }

    fn connections(&self) -> MutexGuard<'_, AdminConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdminConnections {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Displaces the connection of these that is needed least; `None` if all of them are being answered.
    fn displace(&mut self, of: impl Fn(&Connection) -> bool) -> Option<()> {
        let candidates = self.open.iter().filter(|(_, open)| open.phase != Phase::Answering && of(open));
        let number = *candidates.min_by_key(|(_, open)| (open.phase, open.since))?.0;
        self.open.remove(&number)?.displaced.cancel();
        Some(())
    }
}

impl ConnectionPlace {
    /// Notes what the connection does now.
    pub(super) fn enter(&self, phase: Phase) {
        let mut connections = self.table.connections();
        let since = connections.next();
        if let Some(open) = connections.open.get_mut(&self.number) {
            (open.phase, open.since) = (phase, since);
        }
    }

    /// Waits until the connection is displaced.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.connections().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn is_displaced(place: &ConnectionPlace) -> bool {
        place.displaced.is_cancelled()
    }

    #[test]
    fn of_a_thousand_half_sent_heads_of_one_address_the_oldest_go_and_others_keep_their_places() {
        let table = ConnectionTable::default();
        let other = table.take(ip(1)).unwrap();
        let places: Vec<_> = (0..1_000).map(|_| table.take(ip(7)).unwrap()).collect();
        let left: Vec<_> =
            places.iter().enumerate().filter(|(_, place)| !is_displaced(place)).map(|(at, _)| at).collect();
        assert_eq!(left, (1_000 - PER_ADDRESS_MAX..1_000).collect::<Vec<_>>());
        assert!(!is_displaced(&other));
    }

    #[test]
    fn of_many_addresses_the_one_that_has_waited_longest_makes_room() {
        let table = ConnectionTable::default();
        let places: Vec<_> = (0..1_000).map(|number| table.take(ip(number)).unwrap()).collect();
        assert_eq!(places.iter().filter(|place| !is_displaced(place)).count(), CONNECTIONS_MAX);
        drop(places);
        assert!(table.connections().open.is_empty());
    }

    #[test]
    fn answers_are_never_displaced_and_requests_only_when_nothing_waits() {
        let table = ConnectionTable::default();
        let places: Vec<_> = (0..PER_ADDRESS_MAX).map(|_| table.take(ip(7)).unwrap()).collect();
        places.iter().for_each(|place| place.enter(Phase::Answering));
        assert!(table.take(ip(7)).is_none());
        assert!(table.take(ip(8)).is_some(), "others have room");
        places[5].enter(Phase::Asking);
        places[9].enter(Phase::Waiting);
        let new = table.take(ip(7)).unwrap();
        new.enter(Phase::Answering);
        assert!(is_displaced(&places[9]) && !is_displaced(&places[5]));
        assert!(table.take(ip(7)).is_some() && is_displaced(&places[5]));
    }
}
