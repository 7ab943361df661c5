//! Budget of the request heads kept by open connections: headers, claims and query, needed to open the connection at
//! another app server.
//!
//! Small heads are free: the connection limit bounds them. Only large heads share the budget, so a client with a small
//! head is never refused because of others. Each head counts in full, because its app server keeps all of it. Values
//! shared between heads save memory only on the node.

use std::sync::Arc;

use crate::bounded::{Budget, BudgetShare};

/// Maximum size of a free head: that of a browser with a cookie and a token.
const FREE_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct HeadBudget(Arc<Budget>);

/// Share of the budget, held while a large head is kept.
pub(crate) type HeadWeight = BudgetShare;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadsFull;

impl HeadBudget {
    /// Creates a budget of this many bytes; `usize::MAX` for no limit.
    #[must_use]
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Budget::new(max_bytes)))
    }

    #[must_use]
    pub(crate) fn is_free(bytes: usize) -> bool {
        bytes <= FREE_BYTES
    }

    /// Reserves budget for the head of a new connection; `None` for a small head.
    ///
    /// # Errors
    /// If the budget is exhausted.
    pub(crate) fn take(&self, bytes: usize) -> Result<Option<HeadWeight>, HeadsFull> {
        if Self::is_free(bytes) { Ok(None) } else { self.0.take(bytes).map(Some).ok_or(HeadsFull) }
    }

    /// Counts the head of a connection already open at another node; `None` for a small head.
    #[must_use]
    pub(crate) fn weigh(&self, bytes: usize) -> Option<HeadWeight> {
        (!Self::is_free(bytes)).then(|| self.0.charge(bytes))
    }

    /// Total bytes of large heads.
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
