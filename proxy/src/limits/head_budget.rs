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

impl HeadBudget {
    /// Budget of so many bytes; `usize::MAX` for no limit.
    #[must_use]
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, kept_bytes: AtomicUsize::new(0) })
    }

    /// Whether a connection with a head of so many bytes may be opened.
    #[must_use]
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= FREE_BYTES || self.kept_bytes().saturating_add(bytes) <= self.max_bytes
    }

    /// Weighs a head that is kept; `None` for a small one.
    #[must_use]
    pub(crate) fn weigh(self: &Arc<Self>, bytes: usize) -> Option<HeadWeight> {
        (bytes > FREE_BYTES).then(|| {
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
        let small: Vec<_> = (0..1_000).filter_map(|_| budget.weigh(FREE_BYTES)).collect();
        assert_eq!((small.len(), budget.kept_bytes()), (0, 0));
        let large = budget.weigh(6_000).unwrap();
        assert!(budget.has_room_for(4_000) && budget.has_room_for(FREE_BYTES) && !budget.has_room_for(6_000));
        drop(large);
        assert!(budget.has_room_for(6_000));
        assert_eq!(budget.kept_bytes(), 0);
    }
}
