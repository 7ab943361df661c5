//! Ids of closed connections that a valid token could reopen. They stay in the route table until the token
//! expires.

use std::rc::Rc;
use std::sync::Arc;

use trunkline_protocol::limits::{CLOCK_SKEW_S, CONNECT_TIMEOUT_S};

use crate::engine::shard::shared::route_table::RouteTable;
use crate::ground::bounded::Deadlines;

/// Lifetime of a token with a connection id in seconds, including clock skew.
const TOKEN_LIFETIME_S: u64 = CONNECT_TIMEOUT_S + 2 * CLOCK_SKEW_S;

/// Ids of closed connections, with the tick at which each is removed.
#[derive(Debug, Default)]
pub(crate) struct ClosedIds {
    routes: Arc<RouteTable>,
    until: Deadlines<Rc<str>>,
}

impl ClosedIds {
    pub(crate) fn new(routes: Arc<RouteTable>) -> Self {
        Self { routes, until: Deadlines::default() }
    }

    /// Ends the route of an id. A negotiated id is kept while its token could reopen it.
    pub(crate) fn close(&mut self, id: &Rc<str>, is_negotiated: bool, now: u32) {
        if !is_negotiated {
            return self.routes.remove(id);
        }
        self.routes.end(id);
        let seconds = u32::try_from(TOKEN_LIFETIME_S).unwrap_or(u32::MAX);
        self.until.push(id.clone(), now.saturating_add(seconds));
    }

    /// Ends the route of a connection that moved to another node, this many seconds after it opened.
    pub(crate) fn move_away(&mut self, id: &Rc<str>, age_s: u64, now: u32) {
        self.close(id, age_s < TOKEN_LIFETIME_S, now);
    }

    pub(crate) fn evict_expired(&mut self, now: u32) {
        self.until.take_due(now).iter().for_each(|id| self.routes.forget(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shard::{Location, ReserveError};

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn closed(is_negotiated: bool) -> (Arc<RouteTable>, ClosedIds) {
        let routes = Arc::new(RouteTable::default());
        let mut ids = ClosedIds::new(routes.clone());
        routes.open(ID, Location { shard: 0, is_compressed: false, slot: 0 });
        ids.close(&Rc::from(ID), is_negotiated, 100);
        (routes, ids)
    }

    #[test]
    fn a_negotiated_id_cannot_attach_again_until_its_token_has_expired() {
        let (routes, mut ids) = closed(true);
        let expires = 100 + u32::try_from(TOKEN_LIFETIME_S).unwrap();
        ids.evict_expired(expires - 1);
        assert_eq!(routes.reserve(ID), Err(ReserveError::Unknown));
        ids.evict_expired(expires);
        assert_eq!(routes.reserve(ID), Ok(()));
    }

    #[test]
    fn a_connection_that_has_moved_away_is_remembered_while_its_token_is_fresh() {
        for (age_s, remembered) in [(0, 1), (TOKEN_LIFETIME_S - 1, 1), (TOKEN_LIFETIME_S, 0)] {
            let routes = Arc::new(RouteTable::default());
            let mut ids = ClosedIds::new(routes.clone());
            ids.move_away(&Rc::from(ID), age_s, 100);
            assert_eq!((ids.until.iter().count(), routes.reserve(ID).is_err()), (remembered, remembered == 1));
        }
    }

    #[test]
    fn an_id_without_a_token_is_removed_immediately() {
        let (routes, ids) = closed(false);
        assert_eq!(ids.until.iter().count(), 0);
        assert_eq!(routes.reserve(ID), Ok(()));
    }
}
