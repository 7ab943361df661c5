//! Backlog of a node's webhooks: what waits for back ends, in bytes and in clients, and its bounds.

use std::sync::Arc;

use crate::bounded::{Budget, BudgetShare};

/// Maximum number of clients that have gone and whose last events wait; what further ones leave behind is dropped.
const ENDED_MAX: usize = 16_384;

/// Backlog of all webhooks of a node.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Bytes of waiting events, in flight included, and of what is known of clients that have gone.
    pub(super) bytes: Arc<Budget>,
    /// Clients whose end was not delivered yet.
    pub(super) clients: Arc<Budget>,
    /// Clients among them that have gone.
    pub(super) ended: Arc<Budget>,
}

/// Part of one client in the backlog; dropping it returns it.
#[derive(Debug)]
pub(super) struct BacklogShare {
    pub(super) bytes: BudgetShare,
    pub(super) ended: BudgetShare,
    _client: BudgetShare,
}

impl Backlog {
    #[must_use]
    pub(super) fn new(max_bytes: usize) -> Self {
        let [bytes, clients, ended] = [max_bytes, usize::MAX, ENDED_MAX].map(|limit| Arc::new(Budget::new(limit)));
        Self { bytes, clients, ended }
    }

    /// Share of a new client.
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
