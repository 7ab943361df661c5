//! Subjects of webhook hubs over the fleet, such as users, and the reports that this node sends. Pure: time comes in.
//!
//! ```text
//!  batch of a node ──► entry: nodes that have the subject ─► differs from the last report? ──► due, after the grace
//!  node lost ──────►      │                                       reverted ─► nothing           │
//!                         └── changes of its last minute ──► reported again ◄── owner? ◄────────┘
//! ```
//!
//! Every node has the whole table. The node that notices a change names its owner, by a rendezvous hash over the live
//! nodes; the owner reports it. If the owner is lost, the others report its changes of the last minute again.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use trunkline_protocol::service::presence_owner;

use super::subject::Subject;

/// Delay of a report that a user is online. Changes that revert within it are not reported.
const ONLINE_DELAY: Duration = Duration::from_millis(100);

/// Delay of reports about a lost node, after which the others agree on the remaining nodes.
pub(super) const TAKE_OVER_DELAY: Duration = Duration::from_secs(2);

/// Time until a report that the back end did not accept is repeated.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Time for which changes are kept, to be repeated if their owner is lost.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Maximum number of lost nodes; the subjects of such a node are news if it comes back.
const LOST_MAX: usize = 1_024;

/// Maximum number of events in progress per hub, so that a back end that does not answer delays only its own events.
const HUB_REPORTS_MAX: usize = 32;

/// Maximum number of subjects in the table. Further ones are ignored and counted.
const SUBJECTS_MAX: usize = 4 * 1024 * 1024;

/// Batch of a node's log, sent to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubjectBatch<S> {
    /// Boot id of the sender.
    pub(crate) boot: ByteString,
    /// Position of the previous batch; 0 for the first batch with all subjects.
    pub(crate) since: u64,
    pub(crate) until: u64,
    /// The subjects were there before the receiver, so they have been reported.
    pub(crate) is_known: bool,
    /// The sender has no further subjects.
    pub(crate) is_whole: bool,
    pub(crate) changes: Vec<SubjectChange<S>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubjectChange<S> {
    #[serde(flatten)]
    pub(crate) subject: S,
    pub(crate) is_here: bool,
    /// Boot id of the node that reports the change.
    pub(crate) owner: ByteString,
}

/// Answer to a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchAnswer {
    /// Set if the sender was lost to the receiver: subjects up to this position were reported as gone.
    pub(crate) lost_until: Option<u64>,
}

/// Event for the back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectReport<S> {
    pub(crate) subject: S,
    pub(crate) is_online: bool,
}

#[derive(Debug)]
pub(crate) struct SubjectTable<S> {
    /// Boot id of this node.
    me: ByteString,
    grace: Duration,
    sources: HashMap<ByteString, SubjectSource<S>>,
    subjects: HashMap<S, SubjectEntry>,
    due: BTreeSet<(Instant, S)>,
    /// Number of reports in progress of each hub, and its due subjects that wait for the end of a report.
    hubs: HashMap<ByteString, HubReports<S>>,
    /// No node may report, so this one is the last to stop.
    is_last: bool,
    /// Losses of nodes, the oldest first.
    lost: VecDeque<LostNode>,
    ignored: u64,
}

#[derive(Debug)]
struct LostNode {
    boot: ByteString,
    /// Last received position in its log.
    until: u64,
    /// Time from which its subjects are reported as gone.
    due: Instant,
}

/// Cause of a change in the table.
enum ChangeCause {
    Batch {
        owner: ByteString,
        is_known: bool,
    },
    /// The subject is missing in a new series of batches.
    Missing,
    NodeLost,
}

#[derive(Debug, Default)]
struct HubReports<S> {
    running: usize,
    waiting: VecDeque<S>,
}

#[derive(Debug, Default)]
struct SubjectSource<S> {
    /// Position in the log of the node.
    version: u64,
    /// Users from before the current series of batches that are not confirmed yet.
    stale: HashSet<S>,
}

#[derive(Debug, Default)]
struct SubjectEntry {
    /// Boot ids of the nodes with connections of the subject.
    at: Vec<ByteString>,
    /// Whether the subject was last reported online.
    is_reported: bool,
    pending: Option<PendingReport>,
    /// The last change, and its owner.
    changed: Option<(Instant, ByteString)>,
    /// A report of this node is in progress.
    is_running: bool,
    /// The subject waits for a report of the hub to end.
    is_waiting: bool,
}

#[derive(Debug)]
struct PendingReport {
    due: Instant,
    /// Named by the node that has noticed the change; otherwise chosen when the report is due.
    owner: Option<ByteString>,
    /// The state is reported even if it has not changed since the last report, which may have been lost.
    is_doubtful: bool,
}

impl<S: Subject> SubjectTable<S> {
    pub(crate) fn new(me: ByteString, grace: Duration) -> Self {
        Self {
            me,
            grace: grace.max(ONLINE_DELAY),
            sources: HashMap::new(),
            subjects: HashMap::new(),
            due: BTreeSet::new(),
            hubs: HashMap::new(),
            is_last: false,
            lost: VecDeque::new(),
            ignored: 0,
        }
    }

    /// Applies a batch. Fails if earlier batches of the node are missing.
    pub(crate) fn apply(&mut self, batch: SubjectBatch<S>, now: Instant) -> Result<BatchAnswer, MissingBatch> {
        let boot = batch.boot;
        if batch.since == 0 {
            let held = self.subjects.iter().filter(|(_, entry)| entry.at.contains(&boot));
            let stale = held.map(|(subject, _)| subject.clone()).collect();
            self.sources.insert(boot.clone(), SubjectSource { version: 0, stale });
        }
        let source = self.sources.get_mut(&boot).filter(|source| source.version == batch.since);
        let source = source.ok_or(MissingBatch)?;
        source.version = batch.until;
        for change in &batch.changes {
            source.stale.remove(&change.subject);
        }
        let stale = if batch.is_whole { std::mem::take(&mut source.stale) } else { HashSet::new() };
        // The node has returned with all its connections before any of them was reported.
        self.lost.retain(|lost| !(S::ONLY_LOSSES && lost.boot == boot && lost.due > now && batch.until >= lost.until));
        let was_lost = self.lost.iter().any(|lost| lost.boot == boot);
        let reported = self.lost.iter().filter(|lost| S::ONLY_LOSSES && lost.boot == boot && lost.due <= now);
        let lost_until = reported.map(|lost| lost.until).max();
        let is_known = batch.is_known && !was_lost;
        for SubjectChange { subject, is_here, owner } in batch.changes {
            // This node has reported the loss, which the sender does not know.
            let owner = if was_lost { self.me.clone() } else { owner };
            self.change(subject, (&boot, is_here), ChangeCause::Batch { owner, is_known }, now);
        }
        for subject in stale {
            self.change(subject, (&boot, false), ChangeCause::Missing, now);
        }
        // After known subjects others may follow, which were lost, too.
        if batch.is_whole && !batch.is_known {
            self.lost.retain(|lost| lost.boot != boot);
        }
        Ok(BatchAnswer { lost_until })
    }

    fn change(&mut self, subject: S, (boot, is_here): (&ByteString, bool), cause: ChangeCause, now: Instant) {
        let is_loss = matches!(cause, ChangeCause::NodeLost);
        let (owner, is_known) = match cause {
            ChangeCause::Batch { owner, is_known } => (Some(owner), is_known),
            ChangeCause::Missing | ChangeCause::NodeLost => (None, false),
        };
        if !self.subjects.contains_key(&subject) {
            if !is_here {
                return;
            }
            if self.subjects.len() >= SUBJECTS_MAX {
                self.ignored += 1;
                return;
            }
            self.subjects.insert(subject.clone(), SubjectEntry { is_reported: is_known, ..SubjectEntry::default() });
        }
        let Some(entry) = self.subjects.get_mut(&subject) else { return };
        entry.at.retain(|at| at != boot);
        if is_here {
            entry.at.push(boot.clone());
        }
        if S::ONLY_LOSSES && !is_loss {
            (entry.is_reported, entry.pending, entry.changed) = (entry.is_here(), None, None);
            if !entry.is_here() {
                self.due.insert((now, subject));
            }
            return;
        }
        entry.changed = owner.clone().map(|owner| (now, owner)).or(entry.changed.take());
        let is_here = entry.is_here();
        let delay = if is_here { ONLINE_DELAY } else { self.grace };
        let due = if self.is_last { now } else { now + delay };
        match &mut entry.pending {
            // Not before the grace of a user who has left meanwhile.
            Some(pending) if pending.is_doubtful => {
                if !is_here {
                    pending.due = pending.due.max(due);
                    self.due.insert((pending.due, subject.clone()));
                }
            }
            // The user has come back, or has left again.
            Some(_) if is_here == entry.is_reported => entry.pending = None,
            None if is_here != entry.is_reported => {
                entry.pending = Some(PendingReport { due, owner, is_doubtful: false });
                self.due.insert((due, subject.clone()));
            }
            Some(_) | None => {}
        }
        if entry.pending.is_none() {
            self.due.insert((now + REMEMBERED_FOR, subject));
        }
    }

    /// Removes nodes that are no longer in the fleet. Their subjects are gone, and changes that they may not have
    /// reported are reported again.
    pub(crate) fn keep_nodes(&mut self, nodes: &[ByteString], now: Instant) {
        let lost: Vec<_> = self.sources.keys().filter(|boot| !nodes.contains(*boot)).cloned().collect();
        if lost.is_empty() {
            return;
        }
        for boot in &lost {
            let until = self.sources.remove(boot).map_or(0, |source| source.version);
            // Earlier losses stay: the node may have been lost again before it sent all its subjects.
            self.lost.push_back(LostNode { boot: boot.clone(), until, due: now + self.grace });
        }
        self.lost.drain(..self.lost.len().saturating_sub(LOST_MAX));
        let held = self.subjects.iter().filter(|(_, entry)| entry.at.iter().any(|at| lost.contains(at)));
        let held: Vec<_> = held.map(|(subject, _)| subject.clone()).collect();
        for (subject, boot) in held.iter().flat_map(|subject| lost.iter().map(move |boot| (subject, boot))) {
            self.change(subject.clone(), (boot, false), ChangeCause::NodeLost, now);
        }
        for (subject, entry) in &mut self.subjects {
            let is_recent = |(at, owner): &(Instant, ByteString)| *at + REMEMBERED_FOR > now && lost.contains(owner);
            if entry.pending.is_none() && entry.changed.as_ref().is_some_and(is_recent) {
                let due = now + TAKE_OVER_DELAY;
                entry.pending = Some(PendingReport { due, owner: None, is_doubtful: true });
                self.due.insert((due, subject.clone()));
            }
        }
    }

    /// Time at which [`Self::take_due`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes at most this many due reports of this node. `live` are the nodes that may report; without any, this node
    /// is the last one, and reports immediately.
    pub(crate) fn take_due(&mut self, live: &[ByteString], room: usize, now: Instant) -> Vec<SubjectReport<S>> {
        if live.is_empty() && !self.is_last {
            self.hurry(now);
        }
        self.is_last = live.is_empty();
        let mut reports = Vec::new();
        let waiting = self.hubs.iter().filter(|(_, hub)| !hub.waiting.is_empty());
        for hub in waiting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            while reports.len() < room {
                let freed = self.hubs.get_mut(&hub).filter(|hub| hub.running < HUB_REPORTS_MAX);
                let Some(subject) = freed.and_then(|hub| hub.waiting.pop_front()) else { break };
                if let Some(entry) = self.subjects.get_mut(&subject) {
                    entry.is_waiting = false;
                    reports.extend(self.report(subject, live, now));
                }
            }
        }
        while reports.len() < room {
            let Some((_, subject)) = self.due.first().filter(|(at, _)| *at <= now).cloned() else { break };
            self.due.pop_first();
            reports.extend(self.report(subject, live, now));
        }
        reports
    }

    /// Makes all changes due, except repeated reports.
    fn hurry(&mut self, now: Instant) {
        for (subject, entry) in &mut self.subjects {
            if let Some(pending) = entry.pending.as_mut().filter(|pending| !pending.is_doubtful) {
                pending.due = pending.due.min(now);
                self.due.insert((pending.due, subject.clone()));
            }
        }
    }

    fn report(&mut self, subject: S, live: &[ByteString], now: Instant) -> Option<SubjectReport<S>> {
        let entry = self.subjects.get_mut(&subject)?;
        let Some(pending) = &entry.pending else {
            let is_remembered = entry.changed.as_ref().is_some_and(|(at, _)| *at + REMEMBERED_FOR > now);
            if !(entry.is_here() || entry.is_running || entry.is_waiting || is_remembered) {
                self.subjects.remove(&subject);
            }
            return None;
        };
        // A later record of the queue is about this report, or it is taken up again when the current one is done.
        if entry.is_running || entry.is_waiting || pending.due > now {
            return None;
        }
        // The lost node has returned.
        if S::ONLY_LOSSES && entry.is_here() {
            entry.pending = None;
            return None;
        }
        // Only this node knows of its own retries, so it keeps them when it stops.
        let is_own_retry = |owner: &ByteString| pending.is_doubtful && *owner == self.me;
        let named = pending.owner.clone().filter(|owner| live.contains(owner) || is_own_retry(owner));
        let chosen = || presence_owner(live, subject.name()).and_then(|owner| live.get(owner)).cloned();
        let owner = named.or_else(chosen).unwrap_or_else(|| self.me.clone());
        if owner == self.me {
            let hub = self.hubs.entry(subject.hub().clone()).or_default();
            if hub.running >= HUB_REPORTS_MAX {
                if S::ONLY_LOSSES {
                    entry.pending = Some(PendingReport { due: now, owner: Some(self.me.clone()), is_doubtful: true });
                }
                entry.is_waiting = true;
                hub.waiting.push_back(subject);
                return None;
            }
            hub.running += 1;
        }
        (entry.pending, entry.is_reported) = (None, entry.is_here());
        let (is_online, is_mine) = (entry.is_here(), owner == self.me);
        (entry.is_running, entry.changed) = (is_mine, Some((now, owner)));
        self.due.insert((now + REMEMBERED_FOR, subject.clone()));
        is_mine.then_some(SubjectReport { subject, is_online })
    }

    /// Ends a report. A report that was not accepted is repeated later, with the state at that time.
    pub(crate) fn done(&mut self, report: SubjectReport<S>, is_accepted: bool, now: Instant) {
        if let Some(hub) = self.hubs.get_mut(report.subject.hub()) {
            hub.running = hub.running.saturating_sub(1);
            if hub.running == 0 && hub.waiting.is_empty() {
                self.hubs.remove(report.subject.hub());
            }
        }
        let Some(entry) = self.subjects.get_mut(&report.subject) else { return };
        entry.is_running = false;
        if !is_accepted {
            let (retry, owner) = (now + RETRY_INTERVAL, Some(self.me.clone()));
            // Not before the grace of a user who has left meanwhile.
            let left = entry.pending.as_ref().filter(|_| !entry.is_here());
            let due = left.map_or(retry, |pending| pending.due.max(retry));
            entry.pending = Some(PendingReport { due, owner, is_doubtful: true });
        }
        let due = entry.pending.as_ref().map_or(now + REMEMBERED_FOR, |pending| pending.due);
        self.due.insert((due, report.subject));
    }

    /// Counts a subject that is not followed.
    pub(crate) fn ignore(&mut self) {
        self.ignored += 1;
    }

    /// Number of subjects that were not followed because the table was full, or their ids too long.
    pub(crate) fn take_ignored(&mut self) -> u64 {
        std::mem::take(&mut self.ignored)
    }

    /// Whether all changes of this node up to a position are applied and reported.
    pub(crate) fn is_done(&self, version: u64) -> bool {
        self.sources.get(&self.me).map_or(0, |own| own.version) >= version && !self.is_busy()
    }

    fn is_busy(&self) -> bool {
        let is_pending = |subject| self.subjects.get(subject).is_some_and(|entry| entry.pending.is_some());
        self.hubs.values().any(|hub| hub.running > 0 || !hub.waiting.is_empty())
            || self.due.iter().any(|(_, subject)| is_pending(subject))
    }
}

/// Error: the sender has to start again with all its subjects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MissingBatch;

impl SubjectEntry {
    fn is_here(&self) -> bool {
        !self.at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::features::webhook::subject::{HubConnection, HubUser};

    const GRACE: Duration = Duration::from_secs(5);

    const NONE: [bool; 0] = [];

    struct Node {
        table: SubjectTable<HubUser>,
        version: HashMap<&'static str, u64>,
    }

    fn boots(names: &[&str]) -> Vec<ByteString> {
        names.iter().map(|name| ByteString::from(*name)).collect()
    }

    fn ann() -> HubUser {
        HubUser { hub: "chat".into(), user: "ann".into() }
    }

    impl Node {
        fn new(me: &str) -> Self {
            Self { table: SubjectTable::new(me.into(), GRACE), version: HashMap::new() }
        }

        /// Applies a change that a node reports, with this owner.
        fn take(&mut self, boot: &'static str, is_here: bool, owner: &str, now: Instant) {
            let since = *self.version.entry(boot).or_default();
            let changes = vec![SubjectChange { subject: ann(), is_here, owner: owner.into() }];
            let batch =
                SubjectBatch { boot: boot.into(), since, until: since + 1, is_known: false, is_whole: true, changes };
            self.table.apply(batch, now).unwrap();
            self.version.insert(boot, since + 1);
        }

        /// Events that the node sends at this time; they are accepted.
        fn sent(&mut self, live: &[&str], now: Instant) -> Vec<bool> {
            let reports = self.table.take_due(&boots(live), 9, now);
            reports.iter().for_each(|report| self.table.done(report.clone(), true, now));
            reports.iter().map(|report| report.is_online).collect()
        }
    }

    fn after(now: Instant, seconds: f64) -> Instant {
        now + Duration::from_secs_f64(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_at_two_nodes_is_online_once_and_offline_after_the_last_connection_and_the_grace() {
        let (mut a, mut b, now) = (Node::new("a"), Node::new("b"), Instant::now());
        for node in [&mut a, &mut b] {
            node.take("a", true, "b", now);
            node.take("b", true, "b", now);
        }
        let later = after(now, 0.2);
        assert_eq!((a.sent(&["a", "b"], later), b.sent(&["a", "b"], later)), (vec![], vec![true]));
        for node in [&mut a, &mut b] {
            node.take("a", false, "b", later);
            assert_eq!(node.sent(&["a", "b"], after(now, 20.0)), NONE, "there is another connection");
            node.take("b", false, "b", after(now, 20.0));
            assert_eq!(node.sent(&["a", "b"], after(now, 24.9)), NONE);
        }
        assert_eq!(a.sent(&["a", "b"], after(now, 25.1)), NONE);
        assert_eq!(b.sent(&["a", "b"], after(now, 25.1)), [false]);
        for node in [&mut a, &mut b] {
            assert_eq!(node.sent(&["a", "b"], after(now, 90.0)), NONE);
            assert_eq!((node.table.subjects.len(), node.table.next_due()), (0, None), "nothing is kept");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_and_a_short_visit_are_no_events() {
        let (mut a, now) = (Node::new("a"), Instant::now());
        a.take("a", true, "a", now);
        a.take("a", false, "a", after(now, 0.05));
        assert_eq!(a.sent(&["a"], after(now, 9.0)), NONE);
        a.take("a", true, "a", after(now, 10.0));
        assert_eq!(a.sent(&["a"], after(now, 10.2)), [true]);
        a.take("a", false, "a", after(now, 11.0));
        a.take("a", true, "a", after(now, 15.5));
        assert_eq!(a.sent(&["a"], after(now, 99.0)), NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_users_of_a_lost_node_are_offline_and_its_last_reports_are_repeated() {
        let (mut b, now) = (Node::new("b"), Instant::now());
        // Reported by the node that is lost, perhaps.
        b.take("a", true, "a", now);
        assert_eq!(b.sent(&["a", "b"], after(now, 0.2)), NONE);
        b.table.keep_nodes(&boots(&["b"]), after(now, 10.0));
        assert_eq!(b.sent(&["b"], after(now, 10.2)), NONE, "the clients may come back to another node");
        assert_eq!(b.sent(&["b"], after(now, 15.1)), [false]);
        // With a connection at the remaining node, the state is repeated instead.
        let mut c = Node::new("c");
        c.take("a", true, "a", now);
        c.take("c", true, "a", now);
        assert_eq!(c.sent(&["a", "c"], after(now, 0.2)), NONE);
        c.table.keep_nodes(&boots(&["c"]), after(now, 10.0));
        assert_eq!((c.sent(&["c"], after(now, 11.9)), c.sent(&["c"], after(now, 12.1))), (vec![], vec![true]));
        assert_eq!(c.sent(&["c"], after(now, 99.0)), NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn users_from_before_this_node_are_no_news_unless_their_node_was_lost() {
        let (mut b, now) = (Node::new("b"), Instant::now());
        let all = |since: u64, until: u64, is_known: bool| SubjectBatch {
            boot: "a".into(),
            since,
            until,
            is_known,
            is_whole: true,
            changes: vec![SubjectChange { subject: ann(), is_here: true, owner: "a".into() }],
        };
        assert_eq!(b.table.apply(all(3, 4, false), now), Err(MissingBatch));
        b.table.apply(all(0, 4, true), now).unwrap();
        assert_eq!(b.sent(&["a", "b"], after(now, 9.0)), NONE);
        b.table.keep_nodes(&boots(&["b"]), after(now, 10.0));
        assert_eq!(b.sent(&["b"], after(now, 15.1)), [false]);
        b.table.apply(all(0, 4, true), after(now, 20.0)).unwrap();
        assert_eq!(b.sent(&["a", "b"], after(now, 20.2)), [true], "after a split, whoever is named");
        assert_eq!(b.table.lost.len(), 1, "users from after this node may follow");
        b.table.apply(all(4, 4, false), after(now, 21.0)).unwrap();
        assert_eq!(b.table.lost.len(), 0);
        // The node starts again with all users, without her.
        let none = SubjectBatch { changes: Vec::new(), ..all(0, 9, true) };
        b.table.apply(none, after(now, 30.0)).unwrap();
        assert_eq!(b.sent(&["a", "b"], after(now, 35.1)), [false]);
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_a_user_are_sent_one_by_one_and_the_last_state_is_repeated_until_it_is_accepted() {
        let (mut a, now) = (Node::new("a"), Instant::now());
        a.take("a", true, "a", now);
        let online = a.table.take_due(&boots(&["a"]), 9, after(now, 0.2)).remove(0);
        a.take("a", false, "a", after(now, 1.0));
        assert_eq!(
            a.table.take_due(&boots(&["a"]), 9, after(now, 7.0)),
            [] as [SubjectReport<HubUser>; 0],
            "the first one is in progress"
        );
        a.table.done(online, true, after(now, 8.0));
        let offline = a.table.take_due(&boots(&["a"]), 9, after(now, 8.0)).remove(0);
        assert!(!offline.is_online);
        a.table.done(offline, false, after(now, 9.0));
        assert!(a.table.is_busy());
        assert_eq!((a.sent(&["a"], after(now, 18.0)), a.sent(&["a"], after(now, 19.1))), (vec![], vec![false]));
        assert_eq!(a.sent(&["a"], after(now, 99.0)), NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_leaves_while_online_is_refused_has_the_whole_grace() {
        let (mut a, now) = (Node::new("a"), Instant::now());
        a.table.grace = Duration::from_secs(60);
        a.take("a", true, "a", now);
        let online = a.table.take_due(&boots(&["a"]), 9, after(now, 0.2)).remove(0);
        a.take("a", false, "a", after(now, 1.0));
        a.table.done(online, false, after(now, 2.0));
        assert_eq!(a.sent(&["a"], after(now, 60.9)), NONE);
        assert_eq!(a.sent(&["a"], after(now, 61.1)), [false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_whose_back_end_does_not_answer_does_not_delay_the_events_of_others() {
        let (mut a, now) = (SubjectTable::new("a".into(), GRACE), Instant::now());
        let users = |hub: &'static str, count: usize| {
            let user = move |number: usize| HubUser { hub: hub.into(), user: number.to_string().into() };
            (0..count).map(move |number| SubjectChange { subject: user(number), is_here: true, owner: "a".into() })
        };
        let changes = users("app-1", 1000).chain(users("app-2", 10)).collect();
        let (since, until, is_known, is_whole) = (0, 1, false, true);
        a.apply(SubjectBatch { boot: "a".into(), since, until, is_known, is_whole, changes }, now).unwrap();
        let live = boots(&["a"]);
        let taken = a.take_due(&live, 64, after(now, 0.2));
        let of = |hub: &str, taken: &[SubjectReport<HubUser>]| {
            taken.iter().filter(|report| report.subject.hub == hub).count()
        };
        assert_eq!((of("app-1", &taken), of("app-2", &taken)), (HUB_REPORTS_MAX, 10));
        assert_eq!(a.take_due(&live, 64, after(now, 0.3)), [] as [SubjectReport<HubUser>; 0]);
        let mut running: VecDeque<_> = taken.into();
        let mut accepted = 0;
        while let Some(report) = running.pop_front() {
            a.done(report, true, after(now, 1.0));
            accepted += 1;
            running.extend(a.take_due(&live, 64, after(now, 1.0)));
        }
        assert_eq!((accepted, a.is_busy(), a.hubs.len()), (1010, false, 0), "the others have waited");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_node_reports_immediately_when_it_stops() {
        let (mut a, now) = (Node::new("a"), Instant::now());
        a.take("a", true, "a", now);
        assert_eq!(a.sent(&["a"], after(now, 0.2)), [true]);
        a.take("a", false, "a", after(now, 1.0));
        let offline = a.table.take_due(&[], 9, after(now, 1.0)).remove(0);
        assert!(!offline.is_online);
        a.table.done(offline, false, after(now, 1.0));
        assert_eq!(a.sent(&[], after(now, 1.1)), NONE, "what was refused is repeated later");
        assert_eq!(a.sent(&[], after(now, 11.0)), [false]);
    }

    fn connection(number: usize) -> HubConnection {
        HubConnection { hub: "chat".into(), id: number.to_string().into(), user: "".into() }
    }

    /// Nodes `a` and `b`, which follow the connections of node `x`.
    struct Followers {
        tables: [SubjectTable<HubConnection>; 2],
        version: u64,
        is_known: bool,
    }

    impl Followers {
        fn new() -> Self {
            let table = |me: &'static str| SubjectTable::new(me.into(), TAKE_OVER_DELAY);
            Self { tables: [table("a"), table("b")], version: 0, is_known: false }
        }

        fn batch(&mut self, since: u64, changes: &[(usize, bool)], now: Instant) -> Option<u64> {
            let change = |&(number, is_here): &(usize, bool)| SubjectChange {
                subject: connection(number),
                is_here,
                owner: "a".into(),
            };
            self.version += 1;
            let batch = SubjectBatch {
                boot: "x".into(),
                since,
                until: self.version,
                is_known: self.is_known,
                is_whole: true,
                changes: changes.iter().map(change).collect(),
            };
            let answers = self.tables.each_mut().map(|table| table.apply(batch.clone(), now).unwrap());
            assert_eq!(answers[0], answers[1]);
            answers[0].lost_until
        }

        fn change(&mut self, number: usize, is_here: bool, now: Instant) {
            self.batch(self.version, &[(number, is_here)], now);
        }

        fn lose(&mut self, now: Instant) {
            self.tables.iter_mut().for_each(|table| table.keep_nodes(&boots(&["a", "b"]), now));
        }

        /// Connections that the nodes report at this time, by their id. The back end answers each report.
        fn reported(&mut self, is_accepted: bool, now: Instant) -> Vec<String> {
            let mut reported = Vec::new();
            for table in &mut self.tables {
                for report in table.take_due(&boots(&["a", "b"]), 99, now) {
                    reported.push(report.subject.id.to_string());
                    table.done(report, is_accepted, now);
                }
            }
            reported.sort();
            reported
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_connections_of_a_lost_node_are_reported_until_they_are_accepted_or_the_node_returns() {
        let (mut both, now) = (Followers::new(), Instant::now());
        (0..3).for_each(|number| both.change(number, true, now));
        both.change(0, false, now);
        assert_eq!(both.reported(true, after(now, 9.0)), [] as [&str; 0], "their node reports them");
        assert_eq!(both.tables[0].subjects.len(), 2, "an ended connection is removed");
        both.lose(after(now, 10.0));
        assert_eq!(both.reported(true, after(now, 11.9)), [] as [&str; 0], "the others agree on the nodes first");
        assert_eq!(both.reported(false, after(now, 12.1)), ["1", "2"]);
        assert_eq!(both.reported(false, after(now, 22.2)), ["1", "2"]);
        assert_eq!(both.batch(0, &[(1, true)], after(now, 25.0)), Some(4), "1 is still connected");
        assert_eq!(both.reported(true, after(now, 32.3)), ["2"]);
        assert_eq!(both.reported(true, after(now, 200.0)), [] as [&str; 0]);
        assert_eq!(both.tables.each_ref().map(|table| table.subjects.len()), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_a_lost_node_has_reported_for_another_are_reported_again() {
        let (mut both, now) = (Followers::new(), Instant::now());
        (0..20).for_each(|number| both.change(number, true, now));
        let [a, b] = &mut both.tables;
        for table in [&mut *a, &mut *b] {
            let batch = |changes| SubjectBatch {
                boot: if table.me == "a" { "b".into() } else { "a".into() },
                since: 0,
                until: 1,
                is_known: true,
                is_whole: true,
                changes,
            };
            table.apply(batch(Vec::new()), now).unwrap();
        }
        both.lose(now);
        let [a, b] = &mut both.tables;
        let of = |table: &mut SubjectTable<HubConnection>, live: &[&str], at: f64| {
            let reports = table.take_due(&boots(live), 99, after(now, at));
            reports.iter().for_each(|report| table.done(report.clone(), true, after(now, at)));
            reports.into_iter().map(|report| report.subject.id).collect::<BTreeSet<_>>()
        };
        let (by_a, by_b) = (of(a, &["a", "b"], 2.1), of(b, &["a", "b"], 2.1));
        assert_eq!((by_a.len() + by_b.len(), by_a.is_disjoint(&by_b), by_b.is_empty()), (20, true, false));
        a.keep_nodes(&boots(&["a"]), after(now, 20.0));
        assert_eq!(of(a, &["a"], 22.1), by_b);
        assert_eq!(of(a, &["a"], 200.0), BTreeSet::new());
        assert_eq!(a.subjects.len(), 0, "nothing is kept");
    }

    proptest! {
        /// For any changes of a node, only its connections at its loss are reported for it, each once.
        #[test]
        fn only_the_connections_of_a_lost_node_are_reported_and_each_by_one_of_the_others(
            steps in proptest::collection::vec((0u8..5, 0usize..4), 0..40),
        ) {
            let (mut both, mut now) = (Followers::new(), Instant::now());
            let mut here = BTreeSet::new();
            both.batch(0, &[], now);
            for (action, number) in steps {
                now += Duration::from_millis(700);
                match action {
                    0 | 1 => {
                        here.insert(number);
                        both.change(number, true, now);
                    }
                    2 => {
                        here.remove(&number);
                        both.change(number, false, now);
                    }
                    _ => {
                        let lost_at = both.version;
                        both.lose(now);
                        now += TAKE_OVER_DELAY;
                        let is_back_early = action == 3;
                        if !is_back_early {
                            let lost: Vec<_> = here.iter().map(ToString::to_string).collect();
                            prop_assert_eq!(both.reported(true, now), lost);
                        }
                        let all: Vec<_> = here.iter().map(|number| (*number, true)).collect();
                        prop_assert_eq!(both.batch(0, &all, now), Some(lost_at));
                    }
                }
                prop_assert_eq!(both.reported(true, now), Vec::<String>::new());
            }
            now += 2 * REMEMBERED_FOR;
            prop_assert_eq!(both.reported(true, now), Vec::<String>::new());
            prop_assert_eq!(both.tables.each_ref().map(|table| table.subjects.len()), [here.len(); 2]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_returns_before_its_clients_were_reported_closes_none_of_them() {
        let (mut all, now) = (Followers::new(), Instant::now());
        all.change(1, true, now);
        all.lose(after(now, 10.0));
        all.is_known = true;
        assert_eq!(all.batch(0, &[(1, true)], after(now, 11.0)), None);
        all.is_known = false;
        assert_eq!(all.batch(2, &[], after(now, 16.0)), None);
        assert_eq!(all.reported(true, after(now, 20.0)), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_lost_twice_closes_the_clients_of_both_losses() {
        let (mut all, now) = (Followers::new(), Instant::now());
        all.change(1, true, now);
        all.lose(after(now, 10.0));
        assert_eq!(all.reported(true, after(now, 12.1)), ["1"]);
        all.is_known = true;
        assert_eq!(all.batch(0, &[(1, true), (2, true)], after(now, 13.0)), Some(1));
        all.lose(after(now, 14.0));
        assert_eq!(all.reported(true, after(now, 16.1)), ["1", "2"]);
        all.is_known = false;
        assert_eq!(all.batch(0, &[(1, true), (2, true)], after(now, 17.0)), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_lost_again_before_it_sent_all_its_clients_closes_the_reported_ones() {
        let (mut all, now) = (Followers::new(), Instant::now());
        (1..4).for_each(|number| all.change(number, true, now));
        all.lose(after(now, 10.0));
        assert_eq!(all.reported(true, after(now, 12.1)), ["1", "2", "3"]);
        all.is_known = true;
        all.version = 0;
        assert_eq!(all.batch(0, &[(1, true)], after(now, 13.0)), Some(3));
        all.lose(after(now, 14.0));
        all.version = 3;
        assert_eq!(all.batch(0, &[(1, true), (2, true), (3, true)], after(now, 15.0)), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stops_is_busy_until_the_waiting_reports_are_accepted() {
        let (mut all, now) = (Followers::new(), Instant::now());
        (0..200).for_each(|number| all.change(number, true, now));
        all.lose(now);
        let [a, _] = &mut all.tables;
        let mut running: VecDeque<_> = a.take_due(&boots(&["a"]), 999, after(now, 2.1)).into();
        assert_eq!((running.len(), a.is_busy()), (HUB_REPORTS_MAX, true));
        let mut accepted = 0;
        while let Some(report) = running.pop_front() {
            a.done(report, true, after(now, 3.0));
            accepted += 1;
            // Only another node may report now: this one stops, and keeps what waits for its turn.
            running.extend(a.take_due(&boots(&["b"]), 999, after(now, 3.0)));
            assert_eq!(a.is_busy(), accepted < 200);
        }
        assert_eq!(accepted, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stops_keeps_the_reports_that_only_it_knows_of() {
        let (mut all, now) = (Followers::new(), Instant::now());
        all.change(1, true, now);
        all.lose(after(now, 10.0));
        assert_eq!(all.reported(false, after(now, 12.1)), ["1"]);
        let due = |table: &mut SubjectTable<HubConnection>| {
            let reports = table.take_due(&boots(&["c"]), 9, after(now, 23.0));
            reports.iter().map(|report| report.subject.id.to_string()).collect::<Vec<_>>()
        };
        let [a, b] = &mut all.tables;
        assert_eq!([due(a), due(b)].concat(), ["1"], "neither a nor b is live any more");
    }
}
