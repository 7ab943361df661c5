//! Where each client connection of the node is: the one table that all shards share.
//!
//! Lock-free, because a send to one connection asks it. Keys are the first 128 bits of the connection id, so who
//! finds a place still compares the whole id there.

use papaya::{HashMap, Operation};
use trunkline_protocol::id::routing_key;

use super::Slot;

/// Where a client connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which shard owns it.
    pub shard: u16,
    /// Where it stands there.
    pub slot: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// A socket is about to become this connection.
    Reserved,
    Live(Place),
    /// It is over, and its token must not revive it.
    Ended,
}

/// Why an id can't be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReserveError {
    /// Another socket has it.
    #[error("the connection is attached already")]
    Taken,
    /// It is over, or was never ours.
    #[error("No Connection with that ID")]
    Unknown,
}

/// Where each client connection of the node is.
#[derive(Debug, Default)]
pub(crate) struct Routes(HashMap<u128, Route>);

impl Routes {
    /// Keeps an id for a socket that is about to become this connection.
    ///
    /// # Errors
    /// When the id is in use, or was.
    pub(crate) fn reserve(&self, connection_id: &str) -> Result<(), ReserveError> {
        let key = routing_key(connection_id).ok_or(ReserveError::Unknown)?;
        match self.0.pin().try_insert(key, Route::Reserved) {
            Ok(_) => Ok(()),
            Err(taken) if *taken.current == Route::Ended => Err(ReserveError::Unknown),
            Err(_) => Err(ReserveError::Taken),
        }
    }

    /// The connection is here from now on.
    pub(crate) fn open(&self, connection_id: &str, place: Place) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().insert(key, Route::Live(place));
        }
    }

    /// Where a connection is, as far as its first 128 bits tell.
    #[must_use]
    pub(crate) fn find(&self, connection_id: &str) -> Option<Place> {
        match self.0.pin().get(&routing_key(connection_id)?)? {
            Route::Live(place) => Some(*place),
            Route::Reserved | Route::Ended => None,
        }
    }

    /// The connection is over; it is remembered until [`forget`](Self::forget) is called.
    pub(crate) fn end(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().insert(key, Route::Ended);
        }
    }

    /// The connection is over for its client, before its shard knows; unless it is over already, its shard will
    /// [`end`](Self::end) it.
    pub(crate) fn retire(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().compute(key, |entry| match entry {
                Some((_, Route::Live(_) | Route::Reserved)) => Operation::Insert(Route::Ended),
                _ => Operation::<_, ()>::Abort(()),
            });
        }
    }

    /// The connection is over, and no token names it: nothing has to be remembered.
    pub(crate) fn remove(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().remove(&key);
        }
    }

    /// Forgets that a connection was ever here; a live one stays.
    pub(crate) fn forget(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().compute(key, |entry| match entry {
                Some((_, Route::Ended)) => Operation::Remove,
                _ => Operation::<_, ()>::Abort(()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn who_is_retired_can_not_come_back_and_who_is_forgotten_is_not_remembered_again() {
        let routes = Routes::default();
        routes.reserve(ID).unwrap();
        routes.retire(ID);
        assert_eq!(routes.reserve(ID), Err(ReserveError::Unknown));
        routes.forget(ID);
        routes.retire(ID);
        assert_eq!(routes.reserve(ID), Ok(()));
    }

    #[test]
    fn an_id_is_given_once_while_it_lives_and_not_at_all_afterwards() {
        let routes = Routes::default();
        assert_eq!(routes.reserve(ID), Ok(()));
        assert_eq!(routes.reserve(ID), Err(ReserveError::Taken));
        assert_eq!(routes.find(ID), None);
        routes.open(ID, Place { shard: 1, slot: 7 });
        assert_eq!(routes.reserve(ID), Err(ReserveError::Taken));
        assert_eq!(routes.find(ID), Some(Place { shard: 1, slot: 7 }));
        routes.end(ID);
        assert_eq!(routes.reserve(ID), Err(ReserveError::Unknown));
        assert_eq!(routes.find(ID), None);
    }

    #[test]
    fn only_what_is_over_is_forgotten() {
        let routes = Routes::default();
        routes.open(ID, Place { shard: 0, slot: 0 });
        routes.forget(ID);
        assert!(routes.find(ID).is_some());
        routes.end(ID);
        routes.forget(ID);
        assert_eq!(routes.reserve(ID), Ok(()));
    }

    #[test]
    fn what_is_no_id_has_no_place() {
        assert_eq!(Routes::default().reserve("short"), Err(ReserveError::Unknown));
    }
}
