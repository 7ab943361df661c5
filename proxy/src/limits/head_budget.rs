//! Budget of the heads that open connections keep: headers, claims and query, with which another app server could open
//! them.
//!
//! A small head is free: as many are kept as connections may be open. Only large ones share the budget, and a client
//! with a small one is never refused for them. Each counts whole, because its app server keeps it so: that the node
//! keeps once what many have in common saves memory here, and none there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a head that count for nothing: a browser's, with a cookie and a token.
const FREE_BYTES: usize = 4 * 1024;

/// Large heads of open connections, and their limit.
#[derive(Debug)]
pub(crate) struct HeadBudget {
    max_bytes: usize,
    kept_bytes: AtomicUsize,
}

/// Weight of one large head, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct HeadWeight {
    budget: Arc<HeadBudget>,
    bytes: usize,
}

/// Refusal of a large head: all together take what they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadsFull;

impl HeadBudget {
    /// Budget of so many bytes; `usize::MAX` for no limit.
    #[must_use]
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, kept_bytes: AtomicUsize::new(0) })
    }

    /// Whether a head of so many bytes counts for nothing.
    #[must_use]
    pub(crate) fn is_free(bytes: usize) -> bool {
        bytes <= FREE_BYTES
    }

    /// Weighs the head of a connection that is about to be opened, if there is room for it; no weight for a small one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Option<HeadWeight>, HeadsFull> {
        if Self::is_free(bytes) {
            return Ok(None);
        }
        let more = |kept: usize| kept.checked_add(bytes).filter(|all| *all <= self.max_bytes);
        let taken = self.kept_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(|_| Some(HeadWeight { budget: self.clone(), bytes })).map_err(|_| HeadsFull)
    }

    /// Weighs the head of a connection that is open already, at another node; `None` for a small one.
    #[must_use]
    pub(crate) fn weigh(self: &Arc<Self>, bytes: usize) -> Option<HeadWeight> {
        (!Self::is_free(bytes)).then(|| {
            self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
            HeadWeight { budget: self.clone(), bytes }
        })
    }

    /// Bytes of large heads that are kept.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for HeadWeight {
    fn drop(&mut self) {
        self.budget.kept_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
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
