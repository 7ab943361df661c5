//! Users with connections of webhook hubs at this node: a log of changes, which other nodes read from their position
//! on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Maximum number of users without connections in the log. Nodes that have not received the oldest of them get all
/// users again.
const GONE_MAX: usize = 65_536;

/// Maximum bytes of users without connections in the log.
const GONE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Maximum bytes of users in one batch, unless the first alone is larger.
const BATCH_MAX_BYTES: usize = 64 * 1024;

/// Bytes of a user in a batch in addition to its names.
const OVERHEAD_BYTES: usize = 64;

/// User of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HubUser {
    pub(crate) hub: ByteString,
    pub(crate) user: ByteString,
}

#[derive(Debug, Default)]
pub(crate) struct UserLog {
    state: Mutex<LogState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct LogState {
    version: u64,
    /// Oldest position from which the log is complete.
    begins: u64,
    users: HashMap<HubUser, LoggedUser>,
    by_version: BTreeMap<u64, HubUser>,
    /// Versions of users without connections.
    gone: BTreeSet<u64>,
    /// Bytes of these users.
    gone_bytes: usize,
}

#[derive(Debug, Default)]
struct LoggedUser {
    connections: usize,
    /// Version of the last change between none and some connections.
    version: u64,
}

/// Changes of a log, from one position to another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogBatch {
    pub(crate) since: u64,
    pub(crate) until: u64,
    /// Position to which the log was evicted when the first batch of the series was read.
    pub(crate) evicted: u64,
    pub(crate) changes: Vec<LoggedChange>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoggedChange {
    /// Position of the change.
    pub(crate) version: u64,
    pub(crate) user: HubUser,
    /// Whether the user has connections now.
    pub(crate) is_here: bool,
}

/// Connection of a user. Dropped at the end of the connection.
#[derive(Debug)]
pub(super) struct UserStay {
    log: Arc<UserLog>,
    user: HubUser,
}

impl HubUser {
    fn bytes(&self) -> usize {
        self.hub.len() + self.user.len() + OVERHEAD_BYTES
    }
}

impl UserLog {
    pub(super) fn enter(self: &Arc<Self>, user: HubUser) -> UserStay {
        self.change(&user, |connections| connections + 1);
        UserStay { log: self.clone(), user }
    }

    fn change(&self, user: &HubUser, change: impl FnOnce(usize) -> usize) {
        let mut state = self.state();
        let LogState { version, users, by_version, gone, gone_bytes, .. } = &mut *state;
        let logged = users.entry(user.clone()).or_default();
        let before = logged.connections;
        logged.connections = change(before);
        if (before == 0) == (logged.connections == 0) {
            return;
        }
        by_version.remove(&logged.version);
        if gone.remove(&logged.version) {
            *gone_bytes -= user.bytes();
        }
        *version += 1;
        logged.version = *version;
        by_version.insert(*version, user.clone());
        if logged.connections == 0 {
            gone.insert(*version);
            *gone_bytes += user.bytes();
        }
        if gone.len() > GONE_MAX || *gone_bytes > GONE_MAX_BYTES {
            state.evict_half();
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) async fn has_changed(&self) {
        self.changed.notified().await;
    }

    /// Position of the last change.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// First changes after this position, up to another; from the start if departures after it were evicted since the
    /// first batch of the series. Departures evicted before are no loss, because that batch begins with all users.
    #[must_use]
    pub(crate) fn batch(&self, since: u64, to: u64, evicted: u64) -> LogBatch {
        let state = self.state();
        let since = if since < state.begins && evicted < state.begins { 0 } else { since };
        let evicted = if since == 0 { state.begins } else { evicted };
        let (mut bytes, mut batch) = (0, LogBatch { since, until: since, evicted, changes: Vec::new() });
        if to <= since {
            return batch;
        }
        for (version, user) in state.by_version.range(since.saturating_add(1)..=to) {
            bytes += user.bytes();
            if bytes > BATCH_MAX_BYTES && !batch.changes.is_empty() {
                return batch;
            }
            batch.until = *version;
            let is_here = !state.gone.contains(version);
            batch.changes.push(LoggedChange { version: *version, user: user.clone(), is_here });
        }
        batch.until = to;
        batch
    }

    /// Evicts users without connections, up to the change that all readers have received.
    pub(crate) fn prune(&self, received: u64) {
        self.state().evict(received);
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogState {
    fn evict_half(&mut self) {
        while self.gone.len() > GONE_MAX / 2 || self.gone_bytes > GONE_MAX_BYTES / 2 {
            let Some(oldest) = self.gone.first().copied() else { return };
            self.evict(oldest);
        }
    }

    fn evict(&mut self, until: u64) {
        while let Some(version) = self.gone.first().copied().filter(|version| *version <= until) {
            self.gone.remove(&version);
            self.begins = version;
            if let Some(user) = self.by_version.remove(&version) {
                self.gone_bytes -= user.bytes();
                self.users.remove(&user);
            }
        }
    }
}

impl Drop for UserStay {
    fn drop(&mut self) {
        self.log.change(&self.user, |connections| connections - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> HubUser {
        HubUser { hub: "chat".into(), user: name.into() }
    }

    fn seen(log: &UserLog, since: u64) -> (Vec<(String, bool)>, u64) {
        let batch = log.batch(since, log.version(), 0);
        (batch.changes.iter().map(|change| (change.user.user.to_string(), change.is_here)).collect(), batch.until)
    }

    #[test]
    fn only_the_first_and_the_last_connection_of_a_user_are_changes() {
        let log = Arc::new(UserLog::default());
        let tabs = (log.enter(user("ann")), log.enter(user("ann")));
        let ben = log.enter(user("ben"));
        assert_eq!(seen(&log, 0), (vec![("ann".into(), true), ("ben".into(), true)], 2));
        drop(tabs.0);
        assert_eq!(seen(&log, 2), (vec![], 2));
        drop((tabs.1, ben));
        assert_eq!(seen(&log, 2), (vec![("ann".into(), false), ("ben".into(), false)], 4));
        log.prune(3);
        assert_eq!(seen(&log, 3), (vec![("ben".into(), false)], 4));
        assert_eq!(log.batch(2, 4, 0).since, 0, "the end of ann is missing, so the reader starts again");
        let again = log.enter(user("ben"));
        log.prune(5);
        assert_eq!(seen(&log, 0), (vec![("ben".into(), true)], 5));
        drop(again);
    }

    #[test]
    fn a_reader_that_stays_behind_costs_a_limited_number_of_entries() {
        let log = Arc::new(UserLog::default());
        let _stay = log.enter(user("stays"));
        for number in 0..2 * GONE_MAX {
            drop(log.enter(user(&number.to_string())));
        }
        assert!(log.state().users.len() <= GONE_MAX + 2, "{}", log.state().users.len());
        let long = user(&"x".repeat(GONE_MAX_BYTES / 2));
        (0..3).for_each(|_| drop(log.enter(HubUser { hub: log.version().to_string().into(), ..long.clone() })));
        assert!(log.state().gone_bytes <= GONE_MAX_BYTES);
        let first = log.batch(1, log.version(), 0);
        assert_eq!((first.since, &first.changes[0].user), (0, &user("stays")));
        let mut since = first.until;
        while since < log.version() {
            let next = log.batch(since, log.version(), first.evicted);
            assert_eq!(next.since, since);
            since = next.until;
        }
    }

    #[test]
    fn a_new_reader_reads_many_users_to_the_end_although_departures_were_evicted() {
        let log = Arc::new(UserLog::default());
        let _stays: Vec<_> = (0..3000).map(|number| log.enter(user(&number.to_string()))).collect();
        drop(log.enter(user("leaves")));
        log.prune(log.version());
        let (to, mut since, mut evicted, mut read) = (log.version(), 0, 0, 0);
        for _ in 0..9 {
            let batch = log.batch(since, to, evicted);
            assert_eq!(batch.since, since, "the series goes on");
            (since, evicted, read) = (batch.until, batch.evicted, read + batch.changes.len());
        }
        assert_eq!((since, read), (to, 3000));
        // A departure that the reader has missed.
        drop(log.enter(user("leaves")));
        log.prune(log.version());
        assert_eq!(log.batch(since, log.version(), evicted).since, 0);
    }
}
