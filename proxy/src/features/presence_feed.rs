//! Presence: reports to subscribed app servers of users and group members that appear on this shard or leave it.
//!
//! ```text
//!  link opens ──► snapshot, in parts ──► listed ──► changes, batched ──► app server
//!                   ▲                                            │
//!                   └── link lost, another open; large backlog ◄─┘
//! ```
//!
//! Each shard reports its own sets over one link per app server; the peer merges shards and nodes. A snapshot walks the
//! clients by slot, which is fixed while a client is connected. Changes are sent alongside; repeated additions are
//! harmless.
//!
//! All subscribed app servers receive everything; one of them, chosen from the list of subscribers, reports it to the
//! app. The list is at a consistent position of each stream. An app server is listed when its snapshot is complete.

use std::mem;
use std::rc::Rc;

use bytestring::ByteString;
use tokio::sync::Notify;
use trunkline_protocol::manifest::PresenceScope;
use trunkline_protocol::service::{GroupJoin, PresenceChanges, PresencePhase, ServiceMessage};

use crate::engine::shard::{
    Connections, FlushOutcome, LinkLoss, Presence, ServerFeed, SetChanges, SetName, ShardContext,
};
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex};
use crate::ground::metrics::Counters;

/// Maximum number of slots per snapshot step. A full frame ends the step earlier.
const SNAPSHOT_SLOTS: usize = 4_000;

/// Maximum bytes of changes sent to an app server while its link is full. Beyond it, a new snapshot follows
/// when there is room.
const BACKLOG_MAX_BYTES: usize = 256 * 1024;

/// Maximum age at which a client counts as new for a connecting app server: some open before the shard has received the
/// new link.
const NEW_WITHIN_US: u64 = 1_000_000;

/// Number of a user's connections checked to decide whether the user is new.
const CONNECTIONS_LOOKED_AT: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct PresenceFeeds {
    feeds: Vec<HubFeed>,
    last_stream: i64,
    has_changed: Rc<Notify>,
    /// Set while a task sends the changes.
    is_sending: bool,
}

#[derive(Debug)]
struct HubFeed {
    hub: HubIndex,
    subscribers: Vec<Subscriber>,
    /// The list of app servers has changed since it was last sent.
    is_list_new: bool,
    /// App servers lost since the list was last sent.
    lost: Vec<ByteString>,
}

#[derive(Debug)]
struct Subscriber {
    app: AppServerId,
    instance: ByteString,
    scope: PresenceScope,
    link: HomeLink,
    stream: i64,
    state: FeedState,
    /// Receives everything and reports it to the app.
    is_listed: bool,
    /// Set while the app server stops.
    is_leaving: bool,
    /// Bytes of changes sent while the link was full. Snapshots wait for room, so they don't count.
    backlog_bytes: usize,
    /// For this subscriber, clients opened from this time on are new. In microseconds since the node started.
    since_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedState {
    /// A stream starts as soon as there is room.
    Due,
    /// Snapshot in progress: clients up to this slot were sent.
    Snapshot {
        next: usize,
    },
    Live,
}

impl PresenceFeeds {
    fn feed(&mut self, hub: HubIndex) -> Option<&mut HubFeed> {
        self.feeds.iter_mut().find(|feed| feed.hub == hub)
    }
}

impl HubFeed {
    fn scope(&self) -> PresenceScope {
        let is_wanted = |of: fn(PresenceScope) -> bool| self.subscribers.iter().any(|other| of(other.scope));
        PresenceScope { users: is_wanted(|scope| scope.users), groups: is_wanted(|scope| scope.groups) }
    }

    fn listed(&self) -> Vec<ByteString> {
        let listed = self.subscribers.iter().filter(|subscriber| subscriber.is_listed);
        listed.map(|subscriber| subscriber.instance.clone()).collect()
    }

    /// Sends changes, continues snapshots, and then sends the list of app servers if changed.
    fn flush(
        &mut self,
        batch: &PresenceBatch,
        connections: &Connections,
        shard: u16,
        mut next_stream: impl FnMut() -> i64,
    ) {
        let listed = self.listed();
        for subscriber in &mut self.subscribers {
            if subscriber.state == FeedState::Due {
                if subscriber.link.is_full() {
                    continue;
                }
                subscriber.begin_stream(next_stream(), shard, listed.clone());
            } else {
                batch.frames(subscriber.scope).into_iter().for_each(|update| subscriber.send_change(shard, update));
            }
            subscriber.continue_snapshot(connections, self.hub, shard);
            if subscriber.state == FeedState::Live && !subscriber.is_listed && !subscriber.is_leaving {
                subscriber.is_listed = true;
                self.is_list_new = true;
            }
        }
        if mem::take(&mut self.is_list_new) {
            let update = PresenceChanges {
                app_servers: Some(self.listed()),
                lost: mem::take(&mut self.lost),
                ..Default::default()
            };
            let told = self.subscribers.iter_mut().filter(|subscriber| subscriber.state != FeedState::Due);
            told.for_each(|subscriber| subscriber.send_change(shard, update.clone()));
        }
    }
}

impl Subscriber {
    fn begin_stream(&mut self, stream: i64, shard: u16, app_servers: Vec<ByteString>) {
        (self.stream, self.state, self.backlog_bytes) = (stream, FeedState::Snapshot { next: 0 }, 0);
        let phase = PresencePhase::Snapshot;
        self.send(shard, PresenceChanges { phase, app_servers: Some(app_servers), ..PresenceChanges::default() });
    }

    /// Sends the next part of a snapshot, which an app server treats as already reported to the app. Clients newer than
    /// the link connected without any subscriber, so they are sent as changes.
    fn continue_snapshot(&mut self, connections: &Connections, hub: HubIndex, shard: u16) {
        let FeedState::Snapshot { next } = self.state else { return };
        if self.link.is_full() {
            return;
        }
        let mut end = next + SNAPSHOT_SLOTS;
        let (mut batch, mut news) = (PresenceBatch::default(), PresenceBatch::default());
        for (slot, client) in connections.range(next..end).filter(|(_, client)| client.home().hub() == hub) {
            let (user, is_new) = (connections.user_of(client), client.cold().origin().opened_us >= self.since_us);
            for set in connections.sets().sets_of(client).filter(|set| self.wants(set)) {
                match set {
                    SetName::User(user) if is_new && self.is_new(connections, hub, user) => news.online(user),
                    SetName::User(user) => batch.online(user),
                    SetName::Group(group) if is_new => news.joined(group, &client.id, user),
                    SetName::Group(group) => batch.joined(group, &client.id, user),
                    SetName::Hub => {}
                }
            }
            if batch.has_full_frame() || news.has_full_frame() {
                end = slot as usize + 1;
                break;
            }
        }
        news.frames(self.scope).into_iter().for_each(|update| self.send(shard, update));
        let is_last = end >= connections.slot_count();
        self.state = if is_last { FeedState::Live } else { FeedState::Snapshot { next: end } };
        let phase = if is_last { PresencePhase::SnapshotEnd } else { PresencePhase::Snapshot };
        batch.into_snapshot(self.scope, phase).into_iter().for_each(|update| self.send(shard, update));
    }

    fn wants(&self, set: &SetName<'_>) -> bool {
        match set {
            SetName::User(_) => self.scope.users,
            SetName::Group(_) => self.scope.groups,
            SetName::Hub => false,
        }
    }

    /// Whether all connections of a user are new to the subscriber. Only some are checked.
    fn is_new(&self, connections: &Connections, hub: HubIndex, user: &str) -> bool {
        let members = connections.members(hub, SetName::User(user)).iter().take(CONNECTIONS_LOOKED_AT);
        let mut clients = members.filter_map(|member| connections.get(member.slot));
        clients.all(|client| client.cold().origin().opened_us >= self.since_us)
    }

    fn send(&mut self, shard: u16, update: PresenceChanges) {
        let update = PresenceChanges { shard: i64::from(shard), stream: self.stream, ..update };
        if !self.link.queue(&ServiceMessage::PresenceChanges(update)) {
            // A command reporting the lost link is in flight.
            self.state = FeedState::Due;
        }
    }

    /// Sends a change without waiting for room.
    fn send_change(&mut self, shard: u16, update: PresenceChanges) {
        let (was_full, before) = (self.link.is_full(), self.link.ring_bytes());
        self.send(shard, update);
        let added = self.link.ring_bytes().saturating_sub(before);
        self.backlog_bytes = if was_full { self.backlog_bytes + added } else { 0 };
    }

    /// Whether the backlog is so large that a new snapshot has to replace it.
    fn is_overdue(&self) -> bool {
        self.backlog_bytes > BACKLOG_MAX_BYTES && self.state != FeedState::Due
    }
}

impl ServerFeed for PresenceFeeds {
    fn link_opened(
        &mut self,
        connections: &mut Connections,
        context: &ShardContext,
        link: &HomeLink,
    ) -> Option<Rc<Notify>> {
        let pool = context.shared.hubs.pool_of(link)?;
        let scope = pool.presence();
        if !scope.is_any() || pool.is_draining() {
            return None;
        }
        let (hub, app, now_us) = (link.hub(), link.app, context.now_us());
        if self.feed(hub).is_none() {
            self.feeds.push(HubFeed { hub, subscribers: Vec::new(), is_list_new: false, lost: Vec::new() });
        }
        let feed = self.feed(hub)?;
        if feed.subscribers.iter().any(|subscriber| subscriber.app == app) {
            return None;
        }
        feed.subscribers.push(Subscriber {
            app,
            instance: ByteString::from(&*pool.app.instance),
            scope,
            link: link.clone(),
            stream: 0,
            state: FeedState::Due,
            is_listed: false,
            is_leaving: false,
            backlog_bytes: 0,
            since_us: now_us.saturating_sub(NEW_WITHIN_US),
        });
        self.note_presence(connections, hub);
        let is_new = !mem::replace(&mut self.is_sending, true);
        is_new.then(|| self.has_changed.clone())
    }

    /// Restarts a stream over another link after its link is lost, or ends it.
    fn link_lost(&mut self, connections: &mut Connections, context: &ShardContext, loss: &LinkLoss) {
        let hubs = &context.shared.hubs;
        let is_its = |subscriber: &Subscriber| subscriber.link.id == loss.link;
        for feed in self.feeds.iter_mut().filter(|feed| feed.subscribers.iter().any(is_its)) {
            let Some(place) = feed.subscribers.iter().position(is_its) else { continue };
            let app = feed.subscribers.get(place).map(|subscriber| subscriber.app);
            let pool = hubs.at(feed.hub).zip(app).and_then(|(hub, app)| hub.pool_of(app));
            let other = pool.and_then(|pool| pool.link_beside(loss.link));
            match (feed.subscribers.get_mut(place), other) {
                (Some(subscriber), Some(link)) => (subscriber.link, subscriber.state) = (link, FeedState::Due),
                _ => {
                    let gone = feed.subscribers.remove(place);
                    feed.is_list_new |= gone.is_listed;
                    feed.lost.extend(gone.is_listed.then_some(gone.instance));
                }
            }
        }
        let hubs: Vec<_> = self.feeds.iter().map(|feed| feed.hub).collect();
        hubs.into_iter().for_each(|hub| self.note_presence(connections, hub));
    }

    /// Removes a stopping app server from the list, so that others report to the app; it still receives changes.
    fn app_stopping(&mut self, hub: HubIndex, app: AppServerId) {
        let Some(feed) = self.feed(hub) else { return };
        for subscriber in feed.subscribers.iter_mut().filter(|subscriber| subscriber.app == app) {
            subscriber.is_leaving = true;
            feed.is_list_new |= mem::take(&mut subscriber.is_listed);
        }
        self.has_changed.notify_one();
    }

    fn flush(&mut self, connections: &mut Connections, context: &ShardContext) -> FlushOutcome {
        let Self { feeds, last_stream, is_sending, .. } = self;
        if feeds.is_empty() {
            *is_sending = false;
            return FlushOutcome::NoSubscribers;
        }
        let mut outcome = FlushOutcome::All;
        for feed in feeds.iter_mut() {
            let batch = take_batch(feed, connections, &context.counters);
            let next_stream = || {
                *last_stream += 1;
                *last_stream
            };
            feed.flush(&batch, connections, context.index, next_stream);
            for subscriber in feed.subscribers.iter_mut().filter(|subscriber| subscriber.is_overdue()) {
                subscriber.state = FeedState::Due;
                context.counters.presence_resyncs.increment();
            }
            if feed.subscribers.iter().any(|subscriber| subscriber.state != FeedState::Live) {
                outcome = FlushOutcome::NotYet;
            }
        }
        outcome
    }
}

impl PresenceFeeds {
    /// Starts or stops recording a hub's changes, depending on its subscribers.
    fn note_presence(&mut self, connections: &mut Connections, hub: HubIndex) {
        let scope = self.feed(hub).map(|feed| feed.scope()).unwrap_or_default();
        match connections.sets_mut().changes_mut(hub) {
            Some(changes) if scope.is_any() => changes.set_scope(scope),
            Some(_) => connections.sets_mut().note_changes(hub, None),
            None if scope.is_any() => {
                connections.sets_mut().note_changes(hub, Some(SetChanges::new(scope, self.has_changed.clone())));
            }
            None => {}
        }
        self.feeds.retain(|feed| !feed.subscribers.is_empty());
        self.has_changed.notify_one();
    }
}

/// Takes a hub's recorded changes. If there were too many, new snapshots replace them.
fn take_batch(feed: &mut HubFeed, connections: &mut Connections, counters: &Counters) -> PresenceBatch {
    let mut batch = PresenceBatch::default();
    let Some(changes) = connections.sets_mut().changes_mut(feed.hub).map(SetChanges::take_changes) else {
        return batch;
    };
    if changes.are_lost {
        for subscriber in &mut feed.subscribers {
            subscriber.state = FeedState::Due;
            counters.presence_resyncs.increment();
        }
        return batch;
    }
    for (user, presence) in &changes.users {
        match presence {
            Presence::Here => batch.online(user),
            Presence::Gone => batch.offline(user),
        }
    }
    for ((group, id), (presence, slot)) in &changes.members {
        match presence {
            Presence::Here => {
                let client = connections.get(*slot).filter(|client| *client.id == **id);
                batch.joined(group, id, client.and_then(|client| connections.user_of(client)));
            }
            Presence::Gone => batch.left(group, id),
        }
    }
    batch
}

/// Bytes of names at which a frame ends, so that later frames on the link wait no longer than for a page of
/// members.
const FRAME_MAX_BYTES: usize = 256 * 1024;

/// Batched presence updates, split into frames of bounded size.
#[derive(Debug, Default)]
pub(crate) struct PresenceBatch {
    full: Vec<PresenceChanges>,
    open: PresenceChanges,
    bytes: usize,
}

impl PresenceBatch {
    pub(crate) fn online(&mut self, user: &str) {
        self.open.online.push(user.into());
        self.count(user.len());
    }

    pub(crate) fn offline(&mut self, user: &str) {
        self.open.offline.push(user.into());
        self.count(user.len());
    }

    pub(crate) fn joined(&mut self, group: &str, connection_id: &str, user: Option<&str>) {
        let user_id = user.map(ByteString::from);
        self.open.joined.push(GroupJoin { group: group.into(), connection_id: connection_id.into(), user_id });
        self.count(group.len() + connection_id.len() + user.map_or(0, str::len));
    }

    pub(crate) fn left(&mut self, group: &str, connection_id: &str) {
        self.open.left.push((group.into(), connection_id.into()));
        self.count(group.len() + connection_id.len());
    }

    /// Frames for an app server with this scope; none without matching updates.
    pub(crate) fn frames(&self, scope: PresenceScope) -> Vec<PresenceChanges> {
        let all = self.full.iter().chain([&self.open]);
        all.map(|update| narrowed(update, scope)).filter(|update| !is_empty(update)).collect()
    }

    /// Frames for a part of a snapshot; the last one has the phase `end`.
    #[must_use]
    pub(crate) fn into_snapshot(self, scope: PresenceScope, end: PresencePhase) -> Vec<PresenceChanges> {
        let part = |update, phase| PresenceChanges { phase, ..narrowed(update, scope) };
        let full = self.full.iter().map(|update| part(update, PresencePhase::Snapshot));
        full.chain([part(&self.open, end)]).collect()
    }

    /// Whether a frame is full, so that further updates start another one.
    pub(crate) fn has_full_frame(&self) -> bool {
        !self.full.is_empty()
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= FRAME_MAX_BYTES {
            self.full.push(mem::take(&mut self.open));
            self.bytes = 0;
        }
    }
}

fn narrowed(update: &PresenceChanges, scope: PresenceScope) -> PresenceChanges {
    let PresenceChanges { online, offline, joined, left, .. } = update.clone();
    let (online, offline) = if scope.users { (online, offline) } else { Default::default() };
    let (joined, left) = if scope.groups { (joined, left) } else { Default::default() };
    PresenceChanges { online, offline, joined, left, ..PresenceChanges::default() }
}

fn is_empty(update: &PresenceChanges) -> bool {
    let PresenceChanges { online, offline, joined, left, .. } = update;
    online.is_empty() && offline.is_empty() && joined.is_empty() && left.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: PresenceScope = PresenceScope { users: true, groups: false };

    #[test]
    fn long_names_are_cut_into_frames_and_nothing_is_lost() {
        let mut batch = PresenceBatch::default();
        let name = "x".repeat(1000);
        for _ in 0..1000 {
            batch.joined("room", "c", Some(&name));
        }
        batch.online("ann");
        let both = PresenceScope { users: true, groups: true };
        let frames = batch.frames(both);
        assert_eq!(frames.iter().map(|frame| frame.joined.len()).sum::<usize>(), 1000);
        assert_eq!((frames.len(), frames.last().map(|frame| frame.online.len())), (4, Some(1)));
        let users = batch.frames(USERS);
        assert_eq!((users.len(), users[0].joined.len()), (1, 0));
        let phases: Vec<_> =
            batch.into_snapshot(both, PresencePhase::SnapshotEnd).into_iter().map(|frame| frame.phase).collect();
        let part = PresencePhase::Snapshot;
        assert_eq!(phases, [part, part, part, PresencePhase::SnapshotEnd]);
    }

    #[test]
    fn an_empty_batch_has_no_frames_but_a_snapshot_of_nothing_has_an_end() {
        assert!(PresenceBatch::default().frames(USERS).is_empty());
        let end = PresenceBatch::default().into_snapshot(USERS, PresencePhase::SnapshotEnd);
        assert_eq!(end, [PresenceChanges { phase: PresencePhase::SnapshotEnd, ..PresenceChanges::default() }]);
    }
}
