//! Budget of the heads that open connections keep: headers, claims and query, with which another app server could open
//! them.
//!
//! A small head is free: as many are kept as connections may be open. Only large ones share the budget, and a client
//! with a small one is never refused for them. Each counts whole, because its app server keeps it so: that the node
//! keeps once what many have in common saves memory here, and none there.

use std::sync::Arc;

use crate::bounded::{Budget, BudgetShare};

/// Bytes of a head that count for nothing: a browser's, with a cookie and a token.
const FREE_BYTES: usize = 4 * 1024;

/// Large heads of open connections, and their limit.
#[derive(Debug)]
pub(crate) struct HeadBudget(Arc<Budget>);

/// Room that a large head takes for as long as it is kept.
pub(crate) type HeadWeight = BudgetShare;

/// Refusal of a large head: all together use their budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadsFull;

impl HeadBudget {
    /// Budget of this many bytes; `usize::MAX` for no limit.
    #[must_use]
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Budget::new(max_bytes)))
    }

    /// Whether a head of this size counts for nothing.
    #[must_use]
    pub(crate) fn is_free(bytes: usize) -> bool {
        bytes <= FREE_BYTES
    }

    /// Takes room for the head of a connection that is about to be opened; `None` for a small one.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn take(&self, bytes: usize) -> Result<Option<HeadWeight>, HeadsFull> {
        if Self::is_free(bytes) { Ok(None) } else { self.0.take(bytes).map(Some).ok_or(HeadsFull) }
    }

    /// Counts the head of a connection that is open already, at another node; `None` for a small one.
    #[must_use]
    pub(crate) fn weigh(&self, bytes: usize) -> Option<HeadWeight> {
        (!Self::is_free(bytes)).then(|| self.0.charge(bytes))
    }

    /// Bytes of large heads that are kept.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.0.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_a_budget_and_small_ones_are_free() {
        let budget = HeadBudget::new(10_000);
        let small: Vec<_> = (0..1_000).filter_map(|_| budget.take(FREE_BYTES).unwrap()).collect();
        assert_eq!((small.len(), budget.kept_bytes()), (0, 0));
        let large = budget.take(6_000).unwrap();
        assert!(budget.take(4_097).is_err() && budget.take(FREE_BYTES).is_ok() && budget.take(6_000).is_err());
        let arrived = budget.weigh(6_000);
        assert_eq!(budget.kept_bytes(), 12_000, "it is open, and goes on");
        drop((large, arrived));
        assert!(budget.take(6_000).is_ok_and(|weight| weight.is_some()));
        assert_eq!(budget.kept_bytes(), 0);
    }
}
