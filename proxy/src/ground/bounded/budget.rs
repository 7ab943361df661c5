//! Budgets: an amount in use, such as bytes or requests, and its limit. Dropping a share returns its amount.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<Budget>,
    amount: usize,
}

impl Budget {
    /// Creates an unused budget; `usize::MAX` for no limit.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.used() > self.limit
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, amount: usize) -> Option<BudgetShare> {
        self.reserve(amount).then(|| BudgetShare { budget: self.clone(), amount })
    }

    /// Takes an amount regardless of the limit.
    #[must_use]
    pub(crate) fn charge(self: &Arc<Self>, amount: usize) -> BudgetShare {
        self.add(amount);
        BudgetShare { budget: self.clone(), amount }
    }

    /// Takes an amount regardless of the limit, without a share; the caller must release it.
    pub(super) fn add(&self, amount: usize) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes an amount without a share; the caller must release it. Returns `false` if it does not fit.
    pub(super) fn reserve(&self, amount: usize) -> bool {
        let more = |used: usize| used.checked_add(amount).filter(|all| *all <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn release(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl BudgetShare {
    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    /// Increases the amount regardless of the limit.
    pub(crate) fn add(&mut self, amount: usize) {
        self.budget.add(amount);
        self.amount += amount;
    }

    /// Returns a part of the amount, at most all of it.
    pub(crate) fn remove(&mut self, amount: usize) {
        let removed = amount.min(self.amount);
        self.budget.release(removed);
        self.amount -= removed;
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.release(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_exceeds_it_and_gets_back_what_is_dropped() {
        let budget = Arc::new(Budget::new(10));
        let mut share = budget.take(6).unwrap();
        assert!(budget.take(5).is_none() && budget.take(usize::MAX).is_none() && budget.take(4).is_some());
        share.add(3);
        assert_eq!((share.amount(), budget.used(), budget.take(2).is_none()), (9, 9, true));
        share.remove(8);
        let charged = budget.charge(20);
        assert_eq!(
            (budget.used(), budget.is_exceeded(), budget.take(1).is_none()),
            (21, true, true),
            "in use already, whatever the limit"
        );
        drop((share, charged));
        assert_eq!((budget.used(), budget.limit()), (0, 10));
    }
}
