//! Budgets: an amount in use, such as bytes or requests, and its limit. Dropping a share returns its amount.
//!
//! When a byte budget is exceeded, the largest holders of the largest group are closed.

use std::hash::Hash;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::holder::Holders;

#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) limit: usize,
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

/// Fraction of the limit freed at a time: finding the largest holders visits all of them.
const FREED_PART: usize = 8;

/// Byte budget. When it is exceeded, the largest holders of the largest group are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteBudget {
    pub(crate) limit: usize,
}

impl ByteBudget {
    /// Equal share of a budget for each of several users, such as shards, so that they need no coordination.
    pub(crate) fn share_of(total: usize, users: usize) -> Self {
        Self { limit: total / users.max(1) }
    }

    /// Number of bytes to free, down to well below the limit; 0 within the limit.
    pub(crate) fn excess(&self, used: u64) -> usize {
        let used = usize::try_from(used).unwrap_or(usize::MAX);
        if used > self.limit { used - (self.limit - self.limit / FREED_PART) } else { 0 }
    }
}

/// Holders that have these bytes in total. Each is the largest of the group that has most of the remaining bytes.
pub(crate) fn largest<H: Copy + Ord, G: Clone + Eq + Hash + Ord>(
    mut holders: Vec<(usize, H)>,
    mut group_of: impl FnMut(H) -> G,
    excess: usize,
) -> Vec<H> {
    holders.sort_unstable();
    let mut groups =
        Holders::of((0..).zip(&holders).map(|(number, &(bytes, holder))| (number, group_of(holder), bytes)));
    let kept = groups.weight().saturating_sub(excess);
    let next = || if groups.weight() > kept { groups.newest_of_largest((None, 0)) } else { None };
    iter::from_fn(next).filter_map(|number| Some(holders.get(usize::try_from(number).ok()?)?.1)).collect()
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
        assert_eq!((budget.used(), budget.limit), (0, 10));
    }

    #[test]
    fn the_largest_holders_go_first_and_no_more_than_needed() {
        let freed = |excess| largest(vec![(10, 1), (500, 2), (30, 3), (400, 4)], |_| (), excess);
        assert_eq!(freed(0), [0; 0]);
        assert_eq!(freed(1), [2]);
        assert_eq!(freed(900), [2, 4]);
        assert_eq!(freed(901), [2, 4, 3]);
        assert_eq!(freed(usize::MAX), [2, 4, 3, 1]);
    }

    #[test]
    fn the_group_with_most_bytes_gives_way_first() {
        let group_of = |holder: &str| holder.as_bytes()[0];
        let freed = |excess| largest(vec![(50, "a1"), (60, "a2"), (40, "a3"), (80, "b1")], group_of, excess);
        assert_eq!(freed(60), ["a2"]);
        assert_eq!(freed(61), ["a2", "a1"], "a has 90 bytes left, b has 80");
        assert_eq!(freed(111), ["a2", "a1", "b1"]);
    }

    #[test]
    fn a_limit_that_is_exceeded_is_undercut_by_an_eighth() {
        let budget = ByteBudget::share_of(1600, 2);
        assert_eq!((budget.limit, budget.excess(800), budget.excess(801)), (800, 0, 101));
        assert_eq!(ByteBudget::share_of(1600, 0).excess(1600), 0);
    }
}
