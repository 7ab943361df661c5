//! View of the fleet's users and groups, combined from the updates of all nodes' shards. Pure logic: ticks and
//! updates in, notices out.
//!
//! ```text
//!  update of a shard ──► entry: at which shards it is ──► present? differs from last report ──► due in some ticks
//!                                                                         │ reverted meanwhile           │
//!                                                                         └──► nothing to report         ▼
//!                                              another app server reports it: kept for a while ◄── owner? ──► notice
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::service::{PresenceChanges, PresencePhase, presence_owner};

use super::entry::{Entry, Held, Pending, Reporter, Settled, Source, SourceId};
use super::notice::{GroupChanged, Notice, Subject, UserOffline, UserOnline};
use crate::clients::Member;

/// Delay of a report in ticks. Changes that revert within it are not reported.
const NEWS_TICKS: u64 = 1;

/// Delay of a leave report in ticks: the connection may be moving to another node.
const LEAVE_TICKS: u64 = 10;

/// Ticks within which a stopping app server still reports its own due changes.
pub(super) const LAST_TICKS: u64 = 10;

/// Maximum grace period, practically infinite. Keeps sums of ticks from overflowing.
const GRACE_TICKS_MAX: u64 = u64::MAX / 4;

/// Maximum number of joins and leaves per notice. Larger changes are split.
const MEMBERS_PER_NOTICE_MAX: usize = 1_000;

/// Time for which changes reported by other app servers are kept, in case those are lost.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Maximum number of such changes. The oldest are dropped.
const REMEMBERED_MAX: usize = 65_536;

/// Maximum number of tracked users and memberships. Further ones are ignored and counted.
const FOLLOWED_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstSnapshot {
    /// Presence from before this app server started: reported by others, or long ago.
    Known,
    News,
}

/// Users and groups of one hub. `N` identifies a node.
#[derive(Debug)]
pub(super) struct PresenceView<N> {
    me: Arc<str>,
    /// Ticks until a user is reported offline.
    grace: u64,
    /// Ticks for which absences reported by this app server are kept.
    kept_ticks: u64,
    now: u64,
    sources: Vec<Option<Source<N>>>,
    users: HashMap<Arc<str>, Entry>,
    groups: HashMap<Arc<str>, Group>,
    followed: usize,
    ignored: u64,
    due: BTreeMap<u64, Vec<Subject>>,
    ready: VecDeque<Subject>,
    running: HashSet<Subject>,
    reported_by_others: VecDeque<ReportedByOther>,
}

#[derive(Debug, Default)]
struct Group {
    members: HashMap<Arc<str>, Entry>,
    count: u64,
    /// IDs of members with pending reports.
    pending: HashSet<Arc<str>>,
}

/// How an app server has disappeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Departure {
    /// It is stopping, and first reports what is due.
    Left,
    Lost,
}

/// Change that another app server reports.
#[derive(Debug)]
struct ReportedByOther {
    at: Instant,
    reporter: Reporter,
    held: Held,
    user: Option<Arc<str>>,
}

impl<N: PartialEq + Clone> PresenceView<N> {
    pub(super) fn new(me: Arc<str>, grace_ticks: u64) -> Self {
        let grace = grace_ticks.min(GRACE_TICKS_MAX);
        Self {
            me,
            grace: grace.max(NEWS_TICKS),
            kept_ticks: grace + LEAVE_TICKS,
            now: 0,
            sources: Vec::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
            followed: 0,
            ignored: 0,
            due: BTreeMap::new(),
            ready: VecDeque::new(),
            running: HashSet::new(),
            reported_by_others: VecDeque::new(),
        }
    }

    pub(super) fn update(&mut self, node: &N, update: PresenceChanges, first: FirstSnapshot) {
        let Some(id) = self.source_of(node, &update, first) else { return };
        let is_baseline =
            update.phase != PresencePhase::Changes && self.source(id).is_some_and(|source| source.is_known);
        for user in &update.online {
            self.user_here(id, user, is_baseline);
        }
        for join in &update.joined {
            self.member_here(id, (&join.group, &join.connection_id), join.user_id.as_ref(), is_baseline);
        }
        for user in &update.offline {
            let held = Held::User(text(user));
            self.unstale(id, &held);
            self.gone(id, &held, self.grace);
        }
        for (group, connection_id) in &update.left {
            let held = Held::Member(text(group), text(connection_id));
            self.unstale(id, &held);
            self.gone(id, &held, LEAVE_TICKS.min(self.grace));
        }
        if update.phase == PresencePhase::SnapshotEnd {
            self.end_snapshot(id);
        }
        if let Some(app_servers) = update.app_servers {
            self.set_listed(id, &app_servers);
        }
        if !update.lost.is_empty() {
            self.inherit(&update.lost);
        }
    }

    /// Treats a node as unreachable. It may return.
    pub(super) fn suspend(&mut self, node: &N) {
        self.set_suspended(node, true);
    }

    /// Restores a node that has returned.
    pub(super) fn resume(&mut self, node: &N) {
        self.set_suspended(node, false);
    }

    pub(super) fn follows(&self, node: &N) -> bool {
        self.sources.iter().flatten().any(|source| source.node == *node)
    }

    /// Removes a node after its links have closed. `missed_ticks` of the grace period have already passed.
    pub(super) fn forget(&mut self, node: &N, missed_ticks: u64) {
        let grace = self.grace.saturating_sub(missed_ticks).max(NEWS_TICKS);
        for id in self.ids_of(node) {
            for held in self.held_by(id) {
                self.gone(id, &held, grace);
            }
            if let Some(source) = self.sources.get_mut(id) {
                *source = None;
            }
        }
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
        while let Some(due) = self.due.first_entry().filter(|due| *due.key() <= self.now) {
            self.ready.extend(due.remove());
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.due.is_empty() || !self.ready.is_empty()
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Number of changes ignored since the last call, because the tracking limit was reached.
    pub(super) fn take_ignored(&mut self) -> u64 {
        mem::take(&mut self.ignored)
    }

    /// Next notice of this app server. Further notices of its subject wait until it is [done](Self::done).
    pub(super) fn next_notice(&mut self, at: Instant) -> Option<Notice> {
        while let Some(subject) = self.ready.pop_front() {
            if self.running.contains(&subject) {
                // Queued again when the current notice is done.
                continue;
            }
            let notice = match &subject {
                Subject::User(user) => self.notice_of_user(user, at),
                Subject::Group(group) => self.notice_of_group(group, at),
            };
            if let Some(notice) = notice {
                self.running.insert(subject);
                return Some(notice);
            }
        }
        None
    }

    pub(super) fn done(&mut self, subject: Subject) {
        self.running.remove(&subject);
        let now = self.now;
        let is_due = |entry: &Entry| entry.pending().is_some_and(|pending| pending.due <= now);
        let is_ready = match &subject {
            Subject::User(user) => self.users.get(user).is_some_and(is_due),
            Subject::Group(group) => self.groups.get(group).is_some_and(|group| !group.pending.is_empty()),
        };
        if is_ready {
            self.ready.push_back(subject);
        }
    }

    fn notice_of_user(&mut self, user: &Arc<str>, at: Instant) -> Option<Notice> {
        let (now, suspended) = (self.now, Suspended(&self.sources));
        let entry = self.users.get_mut(user)?;
        let due = entry.take_due((now, now + self.kept_ticks), |id| suspended.has(id), &self.me);
        if entry.is_over(now) {
            self.users.remove(user);
            self.followed -= 1;
        } else if let Some(until) = entry.lingers_until() {
            self.due.entry(until + 1).or_default().push(Subject::User(Arc::clone(user)));
        }
        let (is_here, reporter) = due?;
        if let Some(reporter) = reporter {
            self.remember(at, reporter, Held::User(Arc::clone(user)), None);
            return None;
        }
        let user_id = user.to_string();
        Some(match is_here {
            true => Notice::Online(UserOnline { user_id }),
            false => Notice::Offline(UserOffline { user_id }),
        })
    }

    fn notice_of_group(&mut self, name: &Arc<str>, at: Instant) -> Option<Notice> {
        let (now, suspended) = (self.now, Suspended(&self.sources));
        let group = self.groups.get_mut(name)?;
        let mut own = GroupChanged::with_count(name, group.count);
        let mut others = Vec::new();
        let due: Vec<_> = group
            .pending
            .iter()
            .filter(|id| group.members.get(*id).is_none_or(|entry| entry.is_ready(now)))
            .take(MEMBERS_PER_NOTICE_MAX)
            .cloned()
            .collect();
        let has_more = due.len() == MEMBERS_PER_NOTICE_MAX;
        for id in due {
            group.pending.remove(&id);
            let Some(entry) = group.members.get_mut(&id) else { continue };
            let due = entry.take_due((now, now + self.kept_ticks), |id| suspended.has(id), &self.me);
            let user = entry.user.clone();
            if entry.is_over(now) {
                group.members.remove(&id);
                self.followed -= 1;
            } else if let Some(until) = entry.lingers_until() {
                group.pending.insert(Arc::clone(&id));
                self.due.entry(until + 1).or_default().push(Subject::Group(Arc::clone(name)));
            }
            let Some((is_here, reporter)) = due else { continue };
            let member = || Member { connection_id: id.to_string(), user_id: user.as_ref().map(ToString::to_string) };
            match (reporter, is_here) {
                (None, true) => own.joined.push(member()),
                (None, false) => own.left.push(member()),
                (Some(reporter), _) => others.push((reporter, id, user)),
            }
        }
        if group.members.is_empty() {
            self.groups.remove(name);
        }
        for (reporter, id, user) in others {
            self.remember(at, reporter, Held::Member(Arc::clone(name), id), user);
        }
        let is_empty = own.joined.is_empty() && own.left.is_empty();
        if is_empty && has_more {
            self.ready.push_back(Subject::Group(Arc::clone(name)));
        }
        (!is_empty).then_some(Notice::Group(own))
    }

    fn remember(&mut self, at: Instant, reporter: Reporter, held: Held, user: Option<Arc<str>>) {
        let is_old = |told: &ReportedByOther| told.at + REMEMBERED_FOR < at;
        while self.reported_by_others.front().is_some_and(is_old) || self.reported_by_others.len() >= REMEMBERED_MAX {
            self.reported_by_others.pop_front();
        }
        self.reported_by_others.push_back(ReportedByOther { at, reporter, held, user });
    }
}

impl<N: PartialEq + Clone> PresenceView<N> {
    fn source(&self, id: SourceId) -> Option<&Source<N>> {
        self.sources.get(id)?.as_ref()
    }

    fn source_mut(&mut self, id: SourceId) -> Option<&mut Source<N>> {
        self.sources.get_mut(id)?.as_mut()
    }

    fn ids_of(&self, node: &N) -> Vec<SourceId> {
        let is_its = |source: &Option<Source<N>>| source.as_ref().is_some_and(|source| source.node == *node);
        self.sources.iter().enumerate().filter(|(_, source)| is_its(source)).map(|(id, _)| id).collect()
    }

    /// Returns the source of an update; `None` if its stream has been replaced.
    fn source_of(&mut self, node: &N, update: &PresenceChanges, first: FirstSnapshot) -> Option<SourceId> {
        let is_its = |source: &Source<N>| source.node == *node && source.shard == update.shard;
        let known = self.sources.iter().position(|source| source.as_ref().is_some_and(is_its));
        let Some(id) = known else {
            let source = Source::new(node.clone(), update, first == FirstSnapshot::Known);
            let free = self.sources.iter().position(Option::is_none);
            return Some(match free.and_then(|id| Some((id, self.sources.get_mut(id)?))) {
                Some((id, place)) => {
                    *place = Some(source);
                    id
                }
                None => {
                    self.sources.push(Some(source));
                    self.sources.len() - 1
                }
            });
        };
        let stream = self.source(id)?.stream;
        if update.stream > stream {
            let held = self.held_by(id);
            let source = self.source_mut(id)?;
            // A first snapshot that restarts also describes earlier presence.
            (source.stream, source.stale) = (update.stream, held.into_iter().collect());
        }
        (update.stream >= stream).then_some(id)
    }

    /// All entries of a source. A full scan, because streams rarely start and nodes rarely disconnect.
    fn held_by(&self, id: SourceId) -> Vec<Held> {
        let users =
            self.users.iter().filter(|(_, entry)| entry.is_at(id)).map(|(user, _)| Held::User(Arc::clone(user)));
        let members = self.groups.iter().flat_map(|(group, members)| {
            let here = members.members.iter().filter(|(_, entry)| entry.is_at(id));
            here.map(|(id, _)| Held::Member(Arc::clone(group), Arc::clone(id)))
        });
        users.chain(members).collect()
    }

    fn unstale(&mut self, id: SourceId, held: &Held) {
        if let Some(source) = self.source_mut(id).filter(|source| !source.stale.is_empty()) {
            source.stale.remove(held);
        }
    }

    /// Ends a snapshot: removes entries of the previous stream that this one has not confirmed.
    fn end_snapshot(&mut self, id: SourceId) {
        let Some(source) = self.source_mut(id) else { return };
        source.is_known = false;
        for held in mem::take(&mut source.stale) {
            self.gone(id, &held, self.grace);
        }
    }

    fn set_suspended(&mut self, node: &N, is_suspended: bool) {
        for id in self.ids_of(node) {
            let Some(source) = self.source_mut(id) else { continue };
            if mem::replace(&mut source.is_suspended, is_suspended) == is_suspended {
                continue;
            }
            for held in self.held_by(id) {
                self.settle(id, &held, NEWS_TICKS, |_| {});
            }
        }
    }

    fn set_listed(&mut self, id: SourceId, app_servers: &[ByteString]) {
        let Some(source) = self.source_mut(id) else { return };
        let before = mem::replace(&mut source.listed, app_servers.iter().map(text).collect());
        let unlisted: Vec<_> = before.iter().filter(|instance| !self.is_listed(instance)).cloned().collect();
        if !unlisted.is_empty() {
            self.pass_pending_on(&unlisted, Departure::Left);
        }
    }

    /// Whether any node sends changes to this app server.
    fn is_listed(&self, instance: &Arc<str>) -> bool {
        self.sources.iter().flatten().any(|source| source.listed.contains(instance))
    }

    /// App server that reports a change in place of lost ones, selected among its receivers.
    fn heir(&self, name: &str, received_by: &[Arc<str>], gone: &[Arc<str>]) -> Arc<str> {
        let is_there = |instance: &&Arc<str>| !gone.contains(*instance) && self.is_listed(instance);
        let there: Vec<_> = received_by.iter().filter(is_there).cloned().collect();
        owner(&there, name, &self.me)
    }

    /// Assigns pending reports of lost app servers to others.
    fn pass_pending_on(&mut self, gone: &[Arc<str>], tombstones: Departure) {
        // Changes due soon are reported by this app server itself before it stops.
        let (me, keeps_until) = (Arc::clone(&self.me), self.now + LAST_TICKS);
        let passes = |pending: &Pending| {
            let is_kept = *pending.reporter.owner == *me && pending.due <= keeps_until;
            gone.contains(&pending.reporter.owner) && !is_kept
        };
        let (mut users, mut groups) = (mem::take(&mut self.users), mem::take(&mut self.groups));
        let members = groups.iter_mut().flat_map(|(name, Group { members, pending, .. })| {
            let pending = members.iter_mut().filter(|(id, _)| pending.contains(*id));
            pending.map(move |(_, entry)| (name, entry))
        });
        for (name, entry) in users.iter_mut().chain(members) {
            let Some(pending) = entry.pending() else { continue };
            let heir = passes(pending).then(|| self.heir(name, &pending.reporter.received_by, gone));
            // The lost app server may have seen and reported the change earlier.
            entry.pass_on(heir, tombstones == Departure::Lost);
        }
        (self.users, self.groups) = (users, groups);
    }

    /// Repeats recent reports of lost app servers.
    fn inherit(&mut self, lost: &[ByteString]) {
        let lost: Vec<_> = lost.iter().map(text).collect();
        self.pass_pending_on(&lost, Departure::Lost);
        // A lost app server that saw a change earlier may have reported it before it reverted.
        let is_lost = |told: &ReportedByOther| lost.contains(&told.reporter.owner) || *told.reporter.owner == *self.me;
        let (again, rest) = mem::take(&mut self.reported_by_others).into_iter().partition::<VecDeque<_>, _>(is_lost);
        self.reported_by_others = rest;
        for ReportedByOther { at, reporter: Reporter { owner, received_by, .. }, held, user } in again {
            let owner = match lost.contains(&owner) {
                true => self.heir(held.name(), &received_by, &lost),
                false => owner,
            };
            let heir = Reporter { owner, received_by, is_inherited: true };
            if *heir.owner == *self.me {
                self.schedule_report(&held, user, heir);
            } else {
                self.reported_by_others.push_back(ReportedByOther { at, reporter: heir, held, user });
            }
        }
    }

    /// Schedules a report of the current state, because the last report is uncertain.
    fn schedule_report(&mut self, held: &Held, user: Option<Arc<str>>, heir: Reporter) {
        let due = self.now + NEWS_TICKS;
        let subject = match held {
            Held::User(user) => {
                if !self.users.contains_key(user) && !self.has_room() {
                    return;
                }
                self.users
                    .entry(Arc::clone(user))
                    .or_insert_with(|| Entry::new(None, false))
                    .schedule_report(due, heir);
                Subject::User(Arc::clone(user))
            }
            Held::Member(name, id) => {
                let is_known = self.groups.get(name).is_some_and(|group| group.members.contains_key(id));
                if !is_known && !self.has_room() {
                    return;
                }
                let group = self.groups.entry(Arc::clone(name)).or_default();
                group
                    .members
                    .entry(Arc::clone(id))
                    .or_insert_with(|| Entry::new(user, false))
                    .schedule_report(due, heir);
                group.pending.insert(Arc::clone(id));
                Subject::Group(Arc::clone(name))
            }
        };
        self.due.entry(due).or_default().push(subject);
    }
}

impl<N: PartialEq + Clone> PresenceView<N> {
    fn user_here(&mut self, id: SourceId, user: &ByteString, is_baseline: bool) {
        let user = text(user);
        self.unstale(id, &Held::User(Arc::clone(&user)));
        if !self.users.contains_key(&user) {
            if !self.has_room() {
                return;
            }
            self.users.insert(Arc::clone(&user), Entry::new(None, is_baseline));
        }
        self.settle(id, &Held::User(user), NEWS_TICKS, |entry| entry.add_source(id));
    }

    fn member_here(
        &mut self,
        id: SourceId,
        (group, connection_id): (&ByteString, &ByteString),
        user: Option<&ByteString>,
        is_baseline: bool,
    ) {
        let (group, connection_id) = (text(group), text(connection_id));
        self.unstale(id, &Held::Member(Arc::clone(&group), Arc::clone(&connection_id)));
        let is_new = self.groups.get(&group).is_none_or(|group| !group.members.contains_key(&connection_id));
        if is_new {
            if !self.has_room() {
                return;
            }
            let entry = Entry::new(user.map(text), is_baseline);
            self.groups.entry(Arc::clone(&group)).or_default().members.insert(Arc::clone(&connection_id), entry);
        }
        self.settle(id, &Held::Member(group, connection_id), NEWS_TICKS, |entry| entry.add_source(id));
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.followed < FOLLOWED_MAX;
        if has_room {
            self.followed += 1
        } else {
            self.ignored += 1
        }
        has_room
    }

    fn gone(&mut self, id: SourceId, held: &Held, ticks: u64) {
        self.settle(id, held, ticks, |entry| entry.remove(id));
    }

    /// Changes an entry, and schedules a report if its state differs from the last report.
    fn settle(&mut self, id: SourceId, held: &Held, ticks: u64, change: impl FnOnce(&mut Entry)) {
        let suspended = Suspended(&self.sources);
        let is_suspended = |id| suspended.has(id);
        let (entry, subject) = match held {
            Held::User(user) => (self.users.get_mut(user), Subject::User(Arc::clone(user))),
            Held::Member(group, id) => {
                let group_entry = self.groups.get_mut(group);
                (group_entry.and_then(|group| group.members.get_mut(id)), Subject::Group(Arc::clone(group)))
            }
        };
        let Some(entry) = entry else { return };
        let was_here = entry.was_here();
        change(entry);
        let due = self.now + ticks;
        let listed = || self.sources.get(id).and_then(Option::as_ref).map(|source| Arc::clone(&source.listed));
        let settled = entry.settle((self.now, due), is_suspended, |among| {
            let listed = listed().unwrap_or_default();
            let received_by = among.map_or(listed.clone(), |among| {
                listed.iter().filter(|instance| among.contains(instance)).cloned().collect()
            });
            Reporter { owner: owner(&received_by, subject.name(), &self.me), received_by, is_inherited: false }
        });
        let (lingers_until, user) = (entry.lingers_until(), entry.user.clone());
        let (is_here, is_over) = (entry.was_here(), entry.is_over(self.now));
        let is_pending = entry.pending().is_some() || lingers_until.is_some();
        match held {
            Held::User(user) if is_over => {
                self.users.remove(user);
                self.followed -= 1;
            }
            Held::User(_) => {}
            Held::Member(name, id) => {
                if let Some(group) = self.groups.get_mut(name) {
                    group.count = (group.count + u64::from(is_here)).saturating_sub(u64::from(was_here));
                    if is_pending {
                        group.pending.insert(Arc::clone(id))
                    } else {
                        group.pending.remove(id)
                    };
                    if is_over {
                        group.members.remove(id);
                        self.followed -= 1;
                    }
                    if group.members.is_empty() {
                        self.groups.remove(name);
                    }
                }
            }
        }
        let look_at = if matches!(settled, Settled::Begun) { Some(due) } else { lingers_until.map(|until| until + 1) };
        if let Some(at) = look_at {
            self.due.entry(at).or_default().push(subject);
        }
        if let Settled::TurnedBack(reporter) = settled {
            self.remember(Instant::now(), reporter, held.clone(), user);
        }
    }
}

struct Suspended<'a, N>(&'a [Option<Source<N>>]);

impl<N> Suspended<'_, N> {
    fn has(&self, id: SourceId) -> bool {
        self.0.get(id).and_then(Option::as_ref).is_none_or(|source| source.is_suspended)
    }
}

/// Selects the app server that reports on a user or a group; this one if there is no candidate.
fn owner(listed: &[Arc<str>], name: &str, me: &Arc<str>) -> Arc<str> {
    let chosen = presence_owner(listed, name).and_then(|owner| listed.get(owner));
    Arc::clone(chosen.unwrap_or(me))
}

/// Copies a name, so that it does not keep the frame alive.
fn text(name: &ByteString) -> Arc<str> {
    Arc::from(&**name)
}

#[cfg(test)]
mod tests;
