//! Interest of this node in one hub: which messages of other nodes may have recipients here.
//!
//! ```text
//!  first member ──► count 0 → 1 ──► announced? ─ no ──► other nodes, immediately
//!  last member  ──► count 1 → 0                 ┌─────► other nodes, with the next sweep
//!                   sweep: announced, count 0 ──┘
//! ```
//!
//! An announced bucket stays announced until a sweep, so short-lived groups cause no traffic. Threads count without a
//! lock, and only the first and last member of a group.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::interest::{INTEREST_BUCKETS, InterestMap};

/// Interest of this node in one hub.
///
/// All atomics are sequentially consistent: `enter` counts, then checks the announced bit; a sweep clears the bit, then
/// checks the count. So one of the two sees the other.
#[derive(Debug)]
pub struct HubInterest {
    /// Number of groups, users and so on with members here, by bucket.
    counts: Box<[AtomicU32]>,
    /// Bitmap of the buckets announced to other nodes.
    announced: Box<[AtomicU64]>,
}

impl Default for HubInterest {
    fn default() -> Self {
        Self {
            counts: (0..INTEREST_BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            announced: (0..INTEREST_BUCKETS / u64::BITS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl HubInterest {
    /// Counts a first member. Returns whether to announce the bucket now.
    pub fn enter(&self, bucket: u16) -> bool {
        let was = self.counts.get(usize::from(bucket)).map(|count| count.fetch_add(1, Ordering::SeqCst));
        was == Some(0) && self.mark_announced(bucket)
    }

    /// Counts the departure of a last member.
    pub fn leave(&self, bucket: u16) {
        if let Some(count) = self.counts.get(usize::from(bucket)) {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Withdraws announced buckets without members. Returns whether any changed, so that the whole map has to be sent
    /// again.
    pub fn sweep(&self) -> bool {
        let mut has_changed = false;
        for bucket in self.announced_buckets().filter(|&bucket| self.is_unused(bucket)) {
            let (word, bit) = place(bucket);
            let Some(announced) = self.announced.get(word) else { continue };
            announced.fetch_and(!bit, Ordering::SeqCst);
            if self.is_unused(bucket) {
                has_changed = true;
            } else {
                // A member has entered meanwhile, and may have seen the bit set.
                announced.fetch_or(bit, Ordering::SeqCst);
            }
        }
        has_changed
    }

    /// Returns all announced buckets.
    #[must_use]
    pub fn map(&self) -> InterestMap {
        self.announced_buckets().collect()
    }

    /// Marks a bucket as announced. Returns `false` if it already was.
    fn mark_announced(&self, bucket: u16) -> bool {
        let (word, bit) = place(bucket);
        self.announced.get(word).is_some_and(|announced| announced.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    fn is_unused(&self, bucket: u16) -> bool {
        self.counts.get(usize::from(bucket)).is_none_or(|count| count.load(Ordering::SeqCst) == 0)
    }

    fn announced_buckets(&self) -> impl Iterator<Item = u16> {
        let words = (0..=u16::MAX).step_by(64).zip(&self.announced);
        words.flat_map(|(first, announced)| {
            let mut bits = announced.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = u16::try_from(bits.trailing_zeros()).ok().filter(|&bit| bit < 64)?;
                bits &= bits - 1;
                Some(first + bit)
            })
        })
    }
}

fn place(bucket: u16) -> (usize, u64) {
    (usize::from(bucket / 64), 1 << (bucket % 64))
}

#[cfg(test)]
mod tests {
    use super::super::Wanted;
    use super::*;

    #[test]
    fn a_bucket_is_announced_once_until_a_sweep_withdraws_it() {
        let interest = HubInterest::default();
        let [one, other] = [Wanted::Group("one"), Wanted::User("other")].map(|wanted| wanted.bucket());
        assert!(interest.enter(one), "it is news");
        interest.leave(one);
        assert!(!interest.enter(one), "it was told");
        interest.leave(one);
        assert!(interest.enter(other));
        assert_eq!(interest.map(), [one, other].into_iter().collect());
        assert!(interest.sweep());
        assert_eq!(interest.map(), [other].into_iter().collect());
        assert!(!interest.sweep(), "all that is told has members");
        assert!(interest.enter(one), "it is news again");
    }

    #[test]
    fn a_bucket_of_several_names_stays_until_the_last_has_left() {
        let interest = HubInterest::default();
        assert!(interest.enter(u16::MAX) && !interest.enter(u16::MAX));
        interest.leave(u16::MAX);
        assert!(!interest.sweep());
        interest.leave(u16::MAX);
        assert!(interest.sweep() && interest.map().is_empty());
    }

    #[test]
    fn buckets_are_independent() {
        let interest = HubInterest::default();
        assert!((0..=u16::MAX).all(|bucket| interest.enter(bucket)));
        assert_eq!(interest.map(), (0..=u16::MAX).collect());
        (0..=u16::MAX).filter(|bucket| bucket % 3 > 0).for_each(|bucket| interest.leave(bucket));
        assert!(interest.sweep());
        assert_eq!(interest.map(), (0..=u16::MAX).step_by(3).collect());
    }

    #[test]
    fn concurrent_changes_during_sweeps_leave_no_bucket_unannounced() {
        let interest = HubInterest::default();
        std::thread::scope(|scope| {
            for bucket in [1, 2] {
                let interest = &interest;
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        interest.enter(bucket);
                        interest.leave(bucket);
                    }
                    interest.enter(bucket);
                });
            }
            for _ in 0..200 {
                interest.sweep();
            }
        });
        assert!(interest.map().contains(1) && interest.map().contains(2));
    }
}
