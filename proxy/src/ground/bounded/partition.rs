//! Partitions by key, to reduce lock contention between threads.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
