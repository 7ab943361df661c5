//! Connections recently reassigned from or to other app servers.

use std::collections::HashSet;
use std::mem;
use std::sync::Mutex;

use bytestring::ByteString;
use tokio::sync::broadcast;

use crate::connection::Connection;
use crate::sync::lock;

/// Size of one generation of IDs. At least this many of the newest IDs are kept, at most twice as many.
const GENERATION: usize = 8192;

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

/// ID of a reassigned connection after its `on_rehomed`, and whether the connection was kept.
pub(crate) type TakenOver = (ByteString, bool);

/// Maximum number of events that a slow observer can lag behind.
const TAKEN_OVER_MAX: usize = 16;

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
