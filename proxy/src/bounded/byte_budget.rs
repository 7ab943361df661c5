//! Byte budgets. When one is exceeded, the largest holders are closed.

/// Fraction of the limit freed at a time: finding the largest holders visits all of them.
const FREED_PART: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteBudget {
    limit: usize,
}

impl ByteBudget {
    /// Equal share of a budget for each of several users, such as shards, so that they need no coordination.
    pub(crate) fn share_of(total: usize, users: usize) -> Self {
        Self { limit: total / users.max(1) }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Number of bytes to free, down to well below the limit; 0 within the limit.
    pub(crate) fn excess(&self, used: u64) -> usize {
        let used = usize::try_from(used).unwrap_or(usize::MAX);
        if used > self.limit { used - (self.limit - self.limit / FREED_PART) } else { 0 }
    }
}

/// Smallest number of holders that have these bytes in total, largest first.
pub(crate) fn largest<H: Ord>(mut holders: Vec<(usize, H)>, mut excess: usize) -> Vec<H> {
    holders.sort_unstable_by(|one, other| other.cmp(one));
    let chosen = holders.into_iter().take_while(|(bytes, _)| {
        let is_needed = excess > 0;
        excess = excess.saturating_sub(*bytes);
        is_needed
    });
    chosen.map(|(_, holder)| holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_holders_go_first_and_no_more_than_needed() {
        let holders = || vec![(10, 1), (500, 2), (30, 3), (400, 4)];
        assert_eq!(largest(holders(), 0), [0; 0]);
        assert_eq!(largest(holders(), 1), [2]);
        assert_eq!(largest(holders(), 900), [2, 4]);
        assert_eq!(largest(holders(), 901), [2, 4, 3]);
        assert_eq!(largest(holders(), usize::MAX), [2, 4, 3, 1]);
    }

    #[test]
    fn a_limit_that_is_exceeded_is_undercut_by_an_eighth() {
        let budget = ByteBudget::share_of(1600, 2);
        assert_eq!((budget.limit(), budget.excess(800), budget.excess(801)), (800, 0, 101));
        assert_eq!(ByteBudget::share_of(1600, 0).excess(1600), 0);
    }
}
