//! Leases: table entries that exist until their lease is dropped or revoked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

#[derive(Debug)]
pub(crate) struct Leases<T>(Arc<Mutex<LeaseTable<T>>>);

/// Entries by number; the lowest number is the oldest.
#[derive(Debug)]
pub(crate) struct LeaseTable<T> {
    entries: BTreeMap<u64, (T, CancellationToken)>,
    last: u64,
}

#[derive(Debug)]
pub(crate) struct Lease<T> {
    leases: Leases<T>,
    pub(crate) number: u64,
    revoked: CancellationToken,
}

impl<T> Clone for Leases<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Leases<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LeaseTable { entries: BTreeMap::new(), last: 0 })))
    }
}

impl<T> Leases<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, LeaseTable<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry if there are fewer than `limit`.
    pub(crate) fn take(&self, limit: usize, entry: T) -> Option<Lease<T>> {
        self.take_or_revoke(limit, entry, |_, _| None)
    }

    /// Adds an entry. At the limit, revokes the entry returned by `choose`, if any.
    pub(crate) fn take_or_revoke(
        &self,
        limit: usize,
        entry: T,
        choose: impl FnOnce(&LeaseTable<T>, &T) -> Option<u64>,
    ) -> Option<Lease<T>> {
        let mut table = self.lock();
        if table.len() >= limit {
            let chosen = choose(&table, &entry)?;
            table.revoke(chosen)?;
        }
        Some(self.add_to(&mut table, entry))
    }

    /// Adds an entry. The caller bounds the number of entries.
    pub(crate) fn add(&self, entry: T) -> Lease<T> {
        self.add_to(&mut self.lock(), entry)
    }

    fn add_to(&self, table: &mut LeaseTable<T>, entry: T) -> Lease<T> {
        table.last += 1;
        let (number, revoked) = (table.last, CancellationToken::new());
        table.entries.insert(number, (entry, revoked.clone()));
        Lease { leases: self.clone(), number, revoked }
    }
}

impl<T> LeaseTable<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries with their numbers, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().map(|(number, (entry, _))| (*number, entry))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.values_mut().map(|(entry, _)| entry)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.entries.get(&number).map(|(entry, _)| entry)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.entries.get_mut(&number).map(|(entry, _)| entry)
    }

    pub(crate) fn revoke(&mut self, number: u64) -> Option<T> {
        let (entry, revoked) = self.entries.remove(&number)?;
        revoked.cancel();
        Some(entry)
    }
}

impl<T> Lease<T> {
    /// Changes the entry, unless its lease was revoked.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        if let Some(entry) = self.leases.lock().get_mut(self.number) {
            change(entry);
        }
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.revoked
    }

    pub(crate) fn revoked(&self) -> WaitForCancellationFuture<'_> {
        self.revoked.cancelled()
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        // Drop the entry only after the lock is released.
        let _removed = self.leases.lock().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_there_until_its_lease_is_dropped() {
        let leases = Leases::default();
        let (one, two) = (leases.take(2, "a").unwrap(), leases.take(2, "b").unwrap());
        assert!(leases.take(2, "c").is_none());
        drop(one);
        two.update(|entry| *entry = "B");
        let three = leases.take(2, "c").unwrap();
        assert_eq!(leases.lock().iter().collect::<Vec<_>>(), [(two.number, &"B"), (three.number, &"c")]);
    }

    #[test]
    fn at_the_limit_a_new_entry_gets_the_place_of_the_one_that_is_chosen() {
        let leases = Leases::default();
        // Entries above ten can't be revoked.
        let take = |entry: u32| {
            leases.take_or_revoke(2, entry, |table, _| {
                table.iter().find(|(_, entry)| **entry <= 10).map(|(number, _)| number)
            })
        };
        let (one, two) = (take(1).unwrap(), take(2).unwrap());
        one.update(|entry| *entry = 11);
        let three = take(3).unwrap();
        assert!(!one.token().is_cancelled() && two.token().is_cancelled());
        assert!(leases.lock().get_mut(two.number).is_none());
        three.update(|entry| *entry = 12);
        assert!(take(4).is_none(), "both are safe");
        drop((two, three));
        assert_eq!(leases.lock().len(), 1);
        assert!(take(5).is_some());
    }
}
