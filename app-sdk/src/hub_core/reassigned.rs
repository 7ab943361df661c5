//! Connections that lately came from other app servers, and those that lately went there.

use std::collections::HashSet;
use std::mem;
use std::sync::Mutex;

use bytestring::ByteString;
use tokio::sync::broadcast;

use crate::connection::Connection;
use crate::sync::lock;

/// Ids of one generation; at least so many of the newest are remembered, and at most twice as many.
const GENERATION: usize = 8192;

/// Set of ids that forgets the oldest ones.
#[derive(Debug, Default)]
pub(crate) struct RecentIds(Mutex<IdGenerations>);

#[derive(Debug, Default)]
struct IdGenerations {
    young: HashSet<ByteString>,
    old: HashSet<ByteString>,
}

impl RecentIds {
    pub(crate) fn insert(&self, id: ByteString) {
        let mut ids = lock(&self.0);
        if ids.young.len() >= GENERATION {
            ids.old = mem::take(&mut ids.young);
        }
        ids.young.insert(id);
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        let ids = lock(&self.0);
        ids.young.contains(id) || ids.old.contains(id)
    }
}

/// A reassigned connection whose `on_rehomed` has run, by its id; and whether it was kept.
pub(crate) type TakenOver = (ByteString, bool);

/// Maximum number of reassigned connections that a slow observer is behind.
const TAKEN_OVER_MAX: usize = 16;

/// Announcements of the connections that are taken over.
#[derive(Debug)]
pub(crate) struct TakeOvers(broadcast::Sender<TakenOver>);

impl Default for TakeOvers {
    fn default() -> Self {
        Self(broadcast::channel(TAKEN_OVER_MAX).0)
    }
}

impl TakeOvers {
    /// Announces that `on_rehomed` of a connection has run.
    pub(crate) fn announce(&self, connection: &Connection, is_kept: bool) {
        if self.0.receiver_count() > 0 {
            let _ = self.0.send((connection.shared_id(), is_kept));
        }
    }

    /// Observes the connections that are taken over from now on.
    pub(crate) fn observe(&self) -> broadcast::Receiver<TakenOver> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_the_set_stays_small() {
        let ids = RecentIds::default();
        for number in 0..5 * GENERATION {
            ids.insert(number.to_string().into());
        }
        assert!((4 * GENERATION..5 * GENERATION).all(|number| ids.contains(&number.to_string())));
        assert!(!ids.contains("0"));
        let ids = lock(&ids.0);
        assert!(ids.young.len() + ids.old.len() <= 2 * GENERATION);
    }
}
