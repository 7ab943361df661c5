//! Backlog of a node's webhooks: data waiting for back ends, limited in bytes and clients.

use std::sync::Arc;

use crate::ground::bounded::{Budget, BudgetShare};

/// Maximum number of disconnected clients with undelivered events. Events of further ones are dropped.
const ENDED_MAX: usize = 16_384;

#[derive(Debug)]
pub(super) struct Backlog {
    /// Bytes of waiting and in-flight events, and of data about disconnected clients.
    pub(super) bytes: Arc<Budget>,
    /// Clients whose end was not yet delivered to the back end.
    pub(super) clients: Arc<Budget>,
    /// Disconnected clients among them.
    pub(super) ended: Arc<Budget>,
}

/// One client's share of the backlog, returned on drop.
#[derive(Debug)]
pub(super) struct BacklogShare {
    pub(super) bytes: BudgetShare,
    pub(super) ended: BudgetShare,
    _client: BudgetShare,
}

impl Backlog {
    pub(super) fn new(max_bytes: usize) -> Self {
        let [bytes, clients, ended] = [max_bytes, usize::MAX, ENDED_MAX].map(|limit| Arc::new(Budget::new(limit)));
        Self { bytes, clients, ended }
    }

    #[must_use]
    pub(super) fn share(&self) -> BacklogShare {
        BacklogShare { bytes: self.bytes.charge(0), ended: self.ended.charge(0), _client: self.clients.charge(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_leaves_nothing_behind() {
        let backlog = Backlog::new(10);
        let (mut one, mut other) = (backlog.share(), backlog.share());
        one.bytes.add(7);
        other.bytes.add(7);
        assert!(backlog.bytes.is_exceeded());
        one.bytes.remove(3);
        one.ended.add(1);
        let numbers = |backlog: &Backlog| (backlog.bytes.used(), backlog.clients.used(), backlog.ended.used());
        assert_eq!((one.bytes.amount(), numbers(&backlog), backlog.bytes.is_exceeded()), (4, (11, 2, 1), true));
        drop(one);
        assert_eq!((numbers(&backlog), backlog.bytes.is_exceeded()), ((7, 1, 0), false));
        drop(other);
        assert_eq!(numbers(&backlog), (0, 0, 0));
    }
}
