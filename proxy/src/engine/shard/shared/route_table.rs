//! Route table with the shard and slot of each client connection of the node, shared by all shards.
//!
//! Lock-free, because each send to one connection looks it up. Keys are the first 128 bits of the connection id, so the
//! shard still compares the whole id.

use papaya::{Compute, HashMap, Operation};
use trunkline_protocol::id::routing_key;

use crate::engine::shard::slot::Slot;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub shard: u16,
    /// Set if the client's socket negotiated compression.
    pub is_compressed: bool,
    pub slot: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// A socket is about to become this connection.
    Reserved,
    /// A socket looks for this connection on other nodes; its token must not reopen it here.
    Returning,
    Live(Location),
    /// Live here, and about to move to another node that may have it already.
    Moving(Location),
    /// Closed; its token must not reopen it.
    Ended,
}

/// Reason why a socket can't attach to an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReserveError {
    #[error("the connection is attached already")]
    Taken,
    /// Closed, or not of this node.
    #[error("No Connection with that ID")]
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct RouteTable(HashMap<u128, Route>);

impl RouteTable {
    /// Reserves an id for a socket that is about to become this connection. Fails if the id is or was in use.
    pub(crate) fn reserve(&self, connection_id: &str) -> Result<(), ReserveError> {
        let key = routing_key(connection_id).ok_or(ReserveError::Unknown)?;
        match self.0.pin().try_insert(key, Route::Reserved) {
            Ok(_) => Ok(()),
            Err(taken) if *taken.current == Route::Ended => Err(ReserveError::Unknown),
            Err(_) => Err(ReserveError::Taken),
        }
    }

    /// Reserves an id for a socket that may resume this connection from another node, even if it has closed here. Fails
    /// if the id is in use.
    pub(crate) fn reserve_return(&self, connection_id: &str) -> Result<(), ReserveError> {
        let key = routing_key(connection_id).ok_or(ReserveError::Unknown)?;
        let routes = self.0.pin();
        let reserved = routes.compute(key, |entry| match entry {
            None => Operation::Insert(Route::Reserved),
            Some((_, Route::Ended)) => Operation::Insert(Route::Returning),
            Some(_) => Operation::Abort(ReserveError::Taken),
        });
        if let Compute::Aborted(error) = reserved { Err(error) } else { Ok(()) }
    }

    pub(crate) fn open_route(&self, connection_id: &str, place: Location) {
        self.set(connection_id, Route::Live(place));
    }

    /// Location of a connection, matched by its first 128 bits.
    pub(crate) fn find(&self, connection_id: &str) -> Option<Location> {
        match self.0.pin().get(&routing_key(connection_id)?)? {
            Route::Live(place) | Route::Moving(place) => Some(*place),
            Route::Reserved | Route::Returning | Route::Ended => None,
        }
    }

    /// Whether a connection is open here, or closed with a token that could reopen it.
    pub(crate) fn knows(&self, connection_id: &str) -> bool {
        routing_key(connection_id).is_some_and(|key| self.0.pin().contains_key(&key))
    }

    pub(crate) fn is_here_alone(&self, connection_id: &str) -> bool {
        routing_key(connection_id).is_some_and(|key| matches!(self.0.pin().get(&key), Some(Route::Live(_))))
    }

    /// Marks a connection as possibly on another node too.
    pub(crate) fn begin_move(&self, connection_id: &str) {
        self.replace_live(connection_id, Route::Moving);
    }

    /// Marks a connection as being only here again.
    pub(crate) fn end_move(&self, connection_id: &str) {
        self.replace_live(connection_id, Route::Live);
    }

    fn replace_live(&self, connection_id: &str, with: impl Fn(Location) -> Route) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().compute(key, |entry| match entry {
                Some((_, Route::Live(place) | Route::Moving(place))) => Operation::Insert(with(*place)),
                _ => Operation::<_, ()>::Abort(()),
            });
        }
    }

    fn set(&self, connection_id: &str, route: Route) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().insert(key, route);
        }
    }

    /// Ends a route. The id stays reserved until [`forget`](Self::forget).
    pub(crate) fn end_route(&self, connection_id: &str) {
        self.set(connection_id, Route::Ended);
    }

    /// Ends a live route before its shard handles the close and calls [`end_route`](Self::end_route).
    pub(crate) fn retire(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().compute(key, |entry| match entry {
                None | Some((_, Route::Ended)) => Operation::<_, ()>::Abort(()),
                Some(_) => Operation::Insert(Route::Ended),
            });
        }
    }

    /// Removes the route of an id without a token.
    pub(crate) fn remove(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().remove(&key);
        }
    }

    pub(crate) fn remove_reserved(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().compute(key, |entry| match entry {
                Some((_, Route::Reserved)) => Operation::Remove,
                Some((_, Route::Returning)) => Operation::Insert(Route::Ended),
                _ => Operation::<_, ()>::Abort(()),
            });
        }
    }

    /// Removes an ended route; a live one stays.
    pub(crate) fn forget(&self, connection_id: &str) {
        if let Some(key) = routing_key(connection_id) {
            self.0.pin().compute(key, |entry| match entry {
                Some((_, Route::Ended)) => Operation::Remove,
                Some((_, Route::Returning)) => Operation::Insert(Route::Reserved),
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
    fn a_retired_id_can_not_attach_again_and_a_removed_one_is_not_retired() {
        let routes = RouteTable::default();
        routes.reserve(ID).unwrap();
        routes.retire(ID);
        assert_eq!(routes.reserve(ID), Err(ReserveError::Unknown));
        routes.forget(ID);
        routes.retire(ID);
        assert_eq!(routes.reserve(ID), Ok(()));
    }

    #[test]
    fn a_connection_that_moves_is_found_but_not_here_alone() {
        let (routes, place) = (RouteTable::default(), Location { shard: 1, is_compressed: false, slot: 7 });
        routes.begin_move(ID);
        assert_eq!((routes.find(ID), routes.is_here_alone(ID)), (None, false));
        routes.open_route(ID, place);
        assert!(routes.is_here_alone(ID));
        routes.begin_move(ID);
        assert_eq!((routes.find(ID), routes.is_here_alone(ID)), (Some(place), false));
        routes.end_move(ID);
        assert!(routes.is_here_alone(ID));
        routes.begin_move(ID);
        routes.retire(ID);
        routes.end_move(ID);
        assert_eq!(routes.find(ID), None);
    }

    #[test]
    fn an_id_attaches_once_and_not_again_after_its_end() {
        let routes = RouteTable::default();
        assert_eq!(routes.reserve(ID), Ok(()));
        assert_eq!(routes.reserve(ID), Err(ReserveError::Taken));
        assert_eq!(routes.find(ID), None);
        routes.open_route(ID, Location { shard: 1, is_compressed: false, slot: 7 });
        assert_eq!(routes.reserve(ID), Err(ReserveError::Taken));
        assert_eq!(routes.find(ID), Some(Location { shard: 1, is_compressed: false, slot: 7 }));
        routes.end_route(ID);
        assert_eq!(routes.reserve(ID), Err(ReserveError::Unknown));
        assert_eq!(routes.find(ID), None);
    }

    #[test]
    fn only_ended_routes_are_removed() {
        let routes = RouteTable::default();
        routes.open_route(ID, Location { shard: 0, is_compressed: false, slot: 0 });
        routes.forget(ID);
        assert!(routes.find(ID).is_some());
        routes.end_route(ID);
        routes.forget(ID);
        assert_eq!(routes.reserve(ID), Ok(()));
    }

    #[test]
    fn an_id_that_is_over_here_may_come_back_from_elsewhere_and_is_over_again_when_it_does_not() {
        let routes = RouteTable::default();
        assert_eq!(routes.reserve_return(ID), Ok(()));
        assert_eq!(routes.reserve_return(ID), Err(ReserveError::Taken));
        routes.remove_reserved(ID);
        routes.end_route(ID);
        assert!(routes.knows(ID));
        assert_eq!((routes.reserve_return(ID), routes.reserve(ID)), (Ok(()), Err(ReserveError::Taken)));
        routes.remove_reserved(ID);
        assert_eq!(routes.reserve(ID), Err(ReserveError::Unknown));
        // The token expires while other nodes are queried.
        routes.reserve_return(ID).unwrap();
        routes.forget(ID);
        routes.remove_reserved(ID);
        assert!(!routes.knows(ID));
        assert_eq!(routes.reserve(ID), Ok(()));
    }

    #[test]
    fn a_short_text_is_no_id() {
        assert_eq!(RouteTable::default().reserve("short"), Err(ReserveError::Unknown));
    }
}
