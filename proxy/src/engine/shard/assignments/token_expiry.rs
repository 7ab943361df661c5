//! Expiry of access tokens, for client connections that close with their token, and for ids of closed connections that
//! a valid token could reopen: these stay in the route table until then.
//!
//! Expiries are stored apart from clients, which cost nothing without an expiry. By the system clock: after a suspended
//! process resumes, overdue connections close immediately.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use trunkline_protocol::limits::{CLOCK_SKEW_S, CONNECT_TIMEOUT_S};

use crate::engine::shard::shared::route_table::RouteTable;
use crate::engine::shard::slot::Slot;
use crate::ground::bounded::Deadlines;

/// Expiry times of tokens by client, in seconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct TokenExpiries {
    by_time: BTreeSet<(u64, Slot)>,
    by_slot: HashMap<Slot, u64>,
}

impl TokenExpiries {
    pub(crate) fn set(&mut self, slot: Slot, at_s: u64) {
        self.forget(slot);
        self.by_time.insert((at_s, slot));
        self.by_slot.insert(slot, at_s);
    }

    pub(crate) fn expiry_of(&self, slot: Slot) -> Option<u64> {
        self.by_slot.get(&slot).copied()
    }

    pub(crate) fn forget(&mut self, slot: Slot) {
        if let Some(at_s) = self.by_slot.remove(&slot) {
            self.by_time.remove(&(at_s, slot));
        }
    }

    /// Whether no token expires, so that the clock need not be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// Next client with an expired token, earliest first. Each is returned once.
    pub(crate) fn next_due(&mut self, now_s: u64) -> Option<Slot> {
        let &(_, slot) = self.by_time.first().filter(|(at_s, _)| *at_s <= now_s)?;
        self.forget(slot);
        Some(slot)
    }
}

/// Lifetime of a token with a connection id in seconds, including clock skew.
const TOKEN_LIFETIME_S: u64 = CONNECT_TIMEOUT_S + 2 * CLOCK_SKEW_S;

/// Ids of closed connections, with the tick at which each is removed.
///
/// They stay in the route table until the token expires.
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
    pub(crate) fn note_closed(&mut self, id: &Rc<str>, is_negotiated: bool, now: u32) {
        if !is_negotiated {
            return self.routes.remove(id);
        }
        self.routes.end_route(id);
        let seconds = u32::try_from(TOKEN_LIFETIME_S).unwrap_or(u32::MAX);
        self.until.push(id.clone(), now.saturating_add(seconds));
    }

    /// Ends the route of a connection that moved to another node, this many seconds after it opened.
    pub(crate) fn move_away(&mut self, id: &Rc<str>, age_s: u64, now: u32) {
        self.note_closed(id, age_s < TOKEN_LIFETIME_S, now);
    }

    pub(crate) fn evict_expired(&mut self, now: u32) {
        self.until.take_due(now).iter().for_each(|id| self.routes.forget(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shard::{Location, ReserveError};

    #[test]
    fn expired_tokens_are_due_once_the_earliest_first() {
        let mut expiries = TokenExpiries::default();
        for (slot, at_s) in [(1, 30), (2, 10), (3, 20)] {
            expiries.set(slot, at_s);
        }
        assert_eq!(expiries.next_due(9), None);
        assert_eq!(expiries.next_due(20), Some(2));
        assert_eq!(expiries.next_due(20), Some(3));
        assert_eq!(expiries.next_due(20), None);
    }

    #[test]
    fn a_freed_slot_is_not_due_and_leaves_nothing_behind() {
        let mut expiries = TokenExpiries::default();
        expiries.set(1, 10);
        expiries.forget(1);
        expiries.forget(7);
        assert_eq!(expiries.next_due(99), None);
        assert!(expiries.by_slot.is_empty() && expiries.is_empty());
    }

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn closed(is_negotiated: bool) -> (Arc<RouteTable>, ClosedIds) {
        let routes = Arc::new(RouteTable::default());
        let mut ids = ClosedIds::new(routes.clone());
        routes.open_route(ID, Location { shard: 0, is_compressed: false, slot: 0 });
        ids.note_closed(&Rc::from(ID), is_negotiated, 100);
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
