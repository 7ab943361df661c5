//! Subjects with connections to webhook hubs at this node, such as users: a log of changes, which other nodes read from
//! their position on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::subject::Subject;

/// Maximum number of subjects without connections in the log. Nodes that have not received the oldest of them get
/// all subjects again.
const GONE_MAX: usize = 65_536;

/// Maximum bytes of subjects without connections in the log.
const GONE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Maximum bytes of subjects in one batch, unless the first alone is larger.
const BATCH_MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct SubjectLog<S> {
    state: Mutex<LogState<S>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct LogState<S> {
    version: u64,
    /// Oldest position from which the log is complete.
    begins: u64,
    /// The node stops, so later ends are not in the log.
    is_closed: bool,
    subjects: HashMap<S, LoggedSubject>,
    by_version: BTreeMap<u64, S>,
    /// Versions of subjects without connections.
    gone: BTreeSet<u64>,
    /// Bytes of these subjects.
    gone_bytes: usize,
}

#[derive(Debug, Default)]
struct LoggedSubject {
    connections: usize,
    /// Version of the last change between none and some connections.
    version: u64,
}

/// Changes of a log, from one position to another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogBatch<S> {
    pub(crate) since: u64,
    pub(crate) until: u64,
    /// Position to which the log was evicted when the first batch of the series was read.
    pub(crate) evicted: u64,
    pub(crate) changes: Vec<LoggedChange<S>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoggedChange<S> {
    /// Position of the change.
    pub(crate) version: u64,
    pub(crate) subject: S,
    /// Whether the subject has connections now.
    pub(crate) is_here: bool,
}

/// Connection of a subject. Dropped at the end of the connection.
#[derive(Debug)]
pub(super) struct SubjectStay<S: Subject> {
    log: Arc<SubjectLog<S>>,
    subject: S,
    /// Position of the subject in the log.
    version: u64,
}

impl<S: Subject> SubjectLog<S> {
    pub(super) fn enter(self: &Arc<Self>, subject: S) -> SubjectStay<S> {
        let version = self.change(&subject, |connections| connections + 1);
        SubjectStay { log: self.clone(), subject, version }
    }

    fn change(&self, subject: &S, change: impl FnOnce(usize) -> usize) -> u64 {
        let mut state = self.state();
        if state.is_closed {
            return state.version;
        }
        let LogState { version, subjects, by_version, gone, gone_bytes, .. } = &mut *state;
        let logged = subjects.entry(subject.clone()).or_default();
        let before = logged.connections;
        logged.connections = change(before);
        if (before == 0) == (logged.connections == 0) {
            return logged.version;
        }
        by_version.remove(&logged.version);
        if gone.remove(&logged.version) {
            *gone_bytes -= subject.bytes();
        }
        *version += 1;
        let changed = *version;
        logged.version = changed;
        by_version.insert(changed, subject.clone());
        if logged.connections == 0 {
            gone.insert(changed);
            *gone_bytes += subject.bytes();
        }
        if gone.len() > GONE_MAX || *gone_bytes > GONE_MAX_BYTES {
            state.evict_half();
        }
        drop(state);
        self.changed.notify_one();
        changed
    }

    pub(crate) async fn has_changed(&self) {
        self.changed.notified().await;
    }

    /// Position of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// First changes after this position, up to another; from the start if departures after it were evicted since the
    /// first batch of the series. Departures evicted before are no loss, because that batch begins with all of them.
    pub(crate) fn batch(&self, since: u64, to: u64, evicted: u64) -> LogBatch<S> {
        let state = self.state();
        let since = if since < state.begins && evicted < state.begins { 0 } else { since };
        let evicted = if since == 0 { state.begins } else { evicted };
        let (mut bytes, mut batch) = (0, LogBatch { since, until: since, evicted, changes: Vec::new() });
        if to <= since {
            return batch;
        }
        for (version, subject) in state.by_version.range(since.saturating_add(1)..=to) {
            bytes += subject.bytes();
            if bytes > BATCH_MAX_BYTES && !batch.changes.is_empty() {
                return batch;
            }
            batch.until = *version;
            let is_here = !state.gone.contains(version);
            batch.changes.push(LoggedChange { version: *version, subject: subject.clone(), is_here });
        }
        batch.until = to;
        batch
    }

    /// Evicts subjects without connections, up to the change that all readers have received.
    pub(crate) fn prune(&self, received: u64) {
        self.state().evict(received);
    }

    /// Whether all readers have received all ends.
    pub(crate) fn has_sent_ends(&self) -> bool {
        self.state().gone.is_empty()
    }

    /// Ends the log: other nodes report the remaining subjects when this node has left.
    pub(crate) fn close_log(&self) {
        self.state().is_closed = true;
    }

    fn state(&self) -> MutexGuard<'_, LogState<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subject> LogState<S> {
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
            if let Some(subject) = self.by_version.remove(&version) {
                self.gone_bytes -= subject.bytes();
                self.subjects.remove(&subject);
            }
        }
    }
}

impl<S: Subject> SubjectStay<S> {
    pub(super) fn version(&self) -> u64 {
        self.version
    }
}

impl<S: Subject> Drop for SubjectStay<S> {
    fn drop(&mut self) {
        self.log.change(&self.subject, |connections| connections.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::webhook::subject::HubUser;

    fn user(name: &str) -> HubUser {
        HubUser { hub: "chat".into(), user: name.into() }
    }

    fn seen(log: &SubjectLog<HubUser>, since: u64) -> (Vec<(String, bool)>, u64) {
        let batch = log.batch(since, log.version(), 0);
        (batch.changes.iter().map(|change| (change.subject.user.to_string(), change.is_here)).collect(), batch.until)
    }

    #[test]
    fn only_the_first_and_the_last_connection_of_a_user_are_changes() {
        let log = Arc::new(SubjectLog::default());
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
    fn a_closed_log_keeps_the_subjects_whose_ends_were_not_reported() {
        let log = Arc::new(SubjectLog::default());
        let (ann, ben) = (log.enter(user("ann")), log.enter(user("ben")));
        assert_eq!((ann.version(), ben.version()), (1, 2));
        drop(ann);
        assert!(!log.has_sent_ends());
        log.prune(3);
        assert!(log.has_sent_ends());
        log.close_log();
        drop(ben);
        assert_eq!(seen(&log, 0), (vec![("ben".into(), true)], 3));
    }

    #[test]
    fn a_reader_that_stays_behind_costs_a_limited_number_of_entries() {
        let log = Arc::new(SubjectLog::default());
        let _stay = log.enter(user("stays"));
        for number in 0..2 * GONE_MAX {
            drop(log.enter(user(&number.to_string())));
        }
        assert!(log.state().subjects.len() <= GONE_MAX + 2, "{}", log.state().subjects.len());
        let long = user(&"x".repeat(GONE_MAX_BYTES / 2));
        (0..3).for_each(|_| drop(log.enter(HubUser { hub: log.version().to_string().into(), ..long.clone() })));
        assert!(log.state().gone_bytes <= GONE_MAX_BYTES);
        let first = log.batch(1, log.version(), 0);
        assert_eq!((first.since, &first.changes[0].subject), (0, &user("stays")));
        let mut since = first.until;
        while since < log.version() {
            let next = log.batch(since, log.version(), first.evicted);
            assert_eq!(next.since, since);
            since = next.until;
        }
    }

    #[test]
    fn a_new_reader_reads_many_users_to_the_end_although_departures_were_evicted() {
        let log = Arc::new(SubjectLog::default());
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
