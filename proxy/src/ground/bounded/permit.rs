//! Permits: a total limit, and a share for each key. Dropping a permit returns it. Amounts, such as bytes, are counted
//! in the same way, without permits. Partitions by key reduce lock contention between threads.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Budget;

/// A key with fewer permits than this gets another one while one is free.
const SMALL_SHARE: usize = 5;

/// Number of permits that a key may hold while this many of `limit` are free. One key alone gets a half, two keys a
/// third each. The last quarter is for many keys: each gets a 64th of the limit, and of the last eighth a 64th of the
/// rest.
pub(crate) fn fair_share(limit: usize, free: usize) -> usize {
    if free > limit / 4 {
        return free;
    }
    let many = if free > limit / 8 { limit / 64 } else { free / 64 };
    many.max(SMALL_SHARE).min(free)
}

/// Permits in use by key. Clones share the permits. There is an entry for each key with a permit.
#[derive(Debug)]
pub(crate) struct Permits<K>(Arc<PermitTable<K>>);

#[derive(Debug)]
struct PermitTable<K> {
    all: Budget,
    share: usize,
    by_key: Partitions<HashMap<K, usize>>,
}

#[derive(Debug)]
pub(crate) struct Permit<K: Eq + Hash> {
    permits: Permits<K>,
    key: Option<K>,
}

/// Error: the limit that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Full<K> {
    pub(crate) limit: usize,
    /// Key that has used up its share; `None` if all permits are in use.
    pub(crate) key: Option<K>,
}

impl<K> Clone for Permits<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> Permits<K> {
    /// Creates `limit` permits, up to `share` per key; `usize::MAX` for no limit.
    pub(crate) fn new(limit: usize, share: usize) -> Self {
        Self(Arc::new(PermitTable { all: Budget::new(limit), share, by_key: Partitions::default() }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.all.used()
    }

    pub(crate) fn limit(&self) -> usize {
        self.0.all.limit
    }

    /// Takes a permit. Without a key, only the total limit applies.
    pub(crate) fn take(&self, key: Option<K>) -> Result<Permit<K>, Full<K>> {
        self.take_within(usize::MAX, key)
    }

    /// Takes a permit for a key within its [`fair_share`].
    pub(crate) fn take_fair(&self, key: K) -> Result<Permit<K>, Full<K>> {
        self.take_within(fair_share(self.limit(), self.free()), Some(key))
    }

    pub(crate) fn free(&self) -> usize {
        self.limit().saturating_sub(self.len())
    }

    /// Takes an amount for a key regardless of the limits. The caller must release it.
    pub(crate) fn charge(&self, key: &K, amount: usize) {
        let PermitTable { all, by_key, .. } = &*self.0;
        all.add(amount);
        *by_key.of(key).entry(key.clone()).or_default() += amount;
    }

    pub(crate) fn held(&self, key: &K) -> usize {
        self.0.by_key.of(key).get(key).copied().unwrap_or_default()
    }

    /// Takes a permit for a key, within a smaller share.
    pub(crate) fn take_within(&self, share: usize, key: Option<K>) -> Result<Permit<K>, Full<K>> {
        let PermitTable { all, by_key, .. } = &*self.0;
        if !all.reserve(1) {
            return Err(Full { limit: all.limit, key: None });
        }
        if let Some(key) = &key {
            let (limit, mut by_key) = (share.min(self.0.share), by_key.of(key));
            if by_key.get(key).copied().unwrap_or_default() >= limit {
                all.release(1);
                return Err(Full { limit, key: Some(key.clone()) });
            }
            *by_key.entry(key.clone()).or_default() += 1;
        }
        Ok(Permit { permits: self.clone(), key })
    }
}

impl<K: Eq + Hash> Permits<K> {
    pub(crate) fn release(&self, key: Option<&K>, amount: usize) {
        let PermitTable { all, by_key, .. } = &*self.0;
        all.release(amount);
        let Some(key) = key else { return };
        let mut by_key = by_key.of(key);
        if let Some(held) = by_key.get_mut(key) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                by_key.remove(key);
            }
        }
    }
}

impl<K: Eq + Hash> Permit<K> {
    pub(crate) fn key(&self) -> Option<&K> {
        self.key.as_ref()
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        self.permits.release(self.key.as_ref(), 1);
    }
}

/// Number of partitions: a few per thread.
const PARTITIONS: usize = 16;

/// Values partitioned by key. The hash is seeded, so clients can't choose colliding keys.
#[derive(Debug)]
pub(crate) struct Partitions<T> {
    hasher: RandomState,
    all: [Mutex<T>; PARTITIONS],
}

impl<T: Default> Default for Partitions<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), all: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<T> Partitions<T> {
    pub(crate) fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(crate) fn of(&self, key: &impl Hash) -> MutexGuard<'_, T> {
        self.of_hash(self.hash(key))
    }

    /// Locks one partition after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.all.iter().map(|partition| partition.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn of_hash(&self, hash: u64) -> MutexGuard<'_, T> {
        let [first, rest @ ..] = &self.all;
        let place = usize::try_from(hash % PARTITIONS as u64).unwrap_or_default();
        let partition = place.checked_sub(1).and_then(|place| rest.get(place)).unwrap_or(first);
        partition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(permits: &Permits<u32>, key: u32) -> Vec<Permit<u32>> {
        std::iter::from_fn(|| permits.take(Some(key)).ok()).collect()
    }

    #[test]
    fn each_key_has_a_share_and_all_together_a_limit() {
        let permits = Permits::new(5, 3);
        let (one, two) = (taken(&permits, 1), taken(&permits, 2));
        assert_eq!((one.len(), two.len(), permits.len()), (3, 2, 5));
        assert_eq!(permits.take(Some(3)).unwrap_err(), Full { limit: 5, key: None });
        drop(two);
        assert_eq!(permits.take(Some(1)).unwrap_err(), Full { limit: 3, key: Some(1) });
        assert_eq!(permits.len(), 3, "a refusal takes nothing");
        let without = [permits.take(None).unwrap(), permits.take(None).unwrap()];
        assert!(permits.take(None).is_err() && without.iter().all(|permit| permit.key().is_none()));
    }

    #[test]
    fn the_last_permits_are_for_keys_with_few() {
        let permits = Permits::new(12, usize::MAX);
        let take_all = |key: u32| std::iter::from_fn(|| permits.take_fair(key).ok()).collect::<Vec<_>>();
        let (one, two, three) = (take_all(1), take_all(2), take_all(3));
        assert_eq!((one.len(), two.len(), three.len()), (6, 3, 2));
        assert_eq!(permits.take_fair(1).unwrap_err(), Full { limit: 1, key: Some(1) });
        let last = permits.take_fair(4).unwrap();
        assert_eq!((permits.take_fair(5).unwrap_err(), permits.free()), (Full { limit: 12, key: None }, 0));
        drop((one, two, last));
        assert_eq!(take_all(3).len(), 4, "half of what is left, with its own");
    }

    #[test]
    fn hundreds_of_greedy_keys_leave_permits_to_further_ones() {
        for (limit, keys) in [(65_536, 250), (4_096, 100)] {
            let permits = Permits::new(limit, usize::MAX);
            let take_all = |key: u32| std::iter::from_fn(|| permits.take_fair(key).ok()).collect::<Vec<_>>();
            let taken: Vec<_> = (0..keys).map(take_all).collect();
            let sizes: Vec<_> = taken.iter().map(Vec::len).collect();
            assert_eq!(sizes[..2], [limit / 2, limit / 4]);
            assert_eq!(sizes[2..10], [limit / 64; 8], "a 64th of the limit");
            assert!(sizes[10..].iter().all(|size| *size >= SMALL_SHARE), "{sizes:?}");
        }
    }

    #[test]
    fn amounts_are_counted_by_key() {
        let bytes = Permits::new(100, usize::MAX);
        bytes.charge(&1, 70);
        bytes.charge(&2, 50);
        assert_eq!((bytes.len(), bytes.free(), bytes.held(&1), bytes.held(&3)), (120, 0, 70, 0));
        bytes.release(Some(&1), 70);
        assert_eq!((bytes.len(), bytes.free(), bytes.held(&1)), (50, 50, 0));
    }

    #[test]
    fn a_smaller_share_may_hold_for_a_key() {
        let permits = Permits::new(usize::MAX, 3);
        let _kept = permits.take_within(1, Some(7)).unwrap();
        assert_eq!(permits.take_within(1, Some(7)).unwrap_err(), Full { limit: 1, key: Some(7) });
        assert_eq!(permits.take_within(0, Some(8)).unwrap_err(), Full { limit: 0, key: Some(8) });
        assert!(permits.take_within(9, Some(7)).is_ok());
    }

    #[test]
    fn a_key_without_permits_takes_no_memory() {
        let permits = Permits::new(usize::MAX, 2);
        for key in 0..1_000 {
            drop((permits.take(Some(key)), permits.take_within(0, Some(key))));
        }
        assert!((0..1_000).all(|key| permits.0.by_key.of(&key).is_empty()));
    }

    #[test]
    fn a_key_has_one_partition_and_all_are_used() {
        let partitions = Partitions::<Vec<u32>>::default();
        for key in 0..1_000_u32 {
            partitions.of(&key).push(key);
            assert!(partitions.of_hash(partitions.hash(&key)).contains(&key));
        }
        let sizes = partitions.all.iter().map(|partition| partition.lock().unwrap().len());
        assert!(sizes.clone().all(|size| size > 0));
        assert_eq!(sizes.sum::<usize>(), 1_000);
    }
}
