//! Presence events for back ends: exchanges the users of webhook hubs with the other nodes, and sends the due events.
//!
//! ```text
//!  log of this node ─┬─► own table ──► due reports ──► POST to the back end
//!                    └─► batches, one at a time per node ──► tables of other nodes
//! ```
//!
//! Woken by changes, by due reports, and once a second to notice nodes that have joined or left.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use trunkline_protocol::service::presence_owner;

use crate::engine::shard::Shared;
use crate::features::webhook::{
    BatchAnswer, HubConnection, HubUser, LoggedChange, Reported, SubjectBatch, SubjectChange, SubjectReport,
    WebhookPresence, Webhooks,
};
use crate::fleet::{Fleet, FleetMember, PeerRequest};

/// Interval at which members are checked.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(1);

/// Time until a batch without an answer is sent again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time until a node without presence gets the batch again.
const ABSENT_INTERVAL: Duration = Duration::from_secs(10);

/// Time after which a node without news gets an empty batch, in case it has removed this node and its users.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Timeout for the answer to a batch.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from which a node that has received this node's connections has those of nodes that are lost now, too. Before,
/// both it and the next node report them.
const SETTLING_TIME: Duration = Duration::from_secs(30);

/// Maximum number of lists of nodes. Older changes take owners from the oldest list.
const VIEWS_MAX: usize = 64;

/// Maximum number of events about users in progress, of all hubs, beside the limits of all webhook requests.
const REPORTS_MAX: usize = 4_096;

/// Reader of this node's log.
#[derive(Debug)]
struct LogReader {
    member: Arc<FleetMember>,
    /// Distinguishes the reader from an earlier reader of the same node: late answers to that reader are ignored.
    serial: u64,
    /// Received position; `None` before the first batch.
    received: Option<u64>,
    /// Position to which the log was evicted when the reader's series of batches began.
    evicted: u64,
    /// Users up to this position were there before the reader.
    known_until: u64,
    /// Since when the node has all subjects from before it.
    current_since: Option<Instant>,
    is_sending: bool,
    /// The node has no presence, as it last answered. Nothing is kept for it.
    is_absent: bool,
    not_before: Instant,
    /// Time of the next batch if there is no news.
    check_at: Instant,
}

enum KeeperOutcome<S> {
    Sent(SentBatch),
    Reported(SubjectReport<S>, bool),
}

/// Answer of a node to a batch.
struct SentBatch {
    boot: ByteString,
    /// Serial of the reader.
    serial: u64,
    until: u64,
    evicted: u64,
    /// `None` without an answer.
    status: Option<StatusCode>,
    answer: BatchAnswer,
}

struct PresenceKeeper<'a, S> {
    shared: &'a Arc<Shared>,
    webhooks: &'a Webhooks,
    fleet: &'a Fleet,
    presence: &'a WebhookPresence<S>,
    me: ByteString,
    readers: HashMap<ByteString, LogReader>,
    next_serial: u64,
    /// Position of the own table in the log.
    applied: u64,
    /// Position to which the log was evicted when that series began.
    evicted: u64,
    /// Nodes among which the owners of changes are chosen, each list for the changes after its position.
    views: VecDeque<(u64, Vec<ByteString>)>,
    reports: usize,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = KeeperOutcome<S>> + Send + 'a>>>,
}

/// Keeps the presence of users and connections, if back ends receive events about it.
pub(crate) async fn run(shared: Arc<Shared>, webhooks: Arc<Webhooks>, fleet: Fleet) {
    tokio::join!(keep::<HubUser>(&shared, &webhooks, &fleet), keep::<HubConnection>(&shared, &webhooks, &fleet));
}

async fn keep<S: Reported>(shared: &Arc<Shared>, webhooks: &Webhooks, fleet: &Fleet) {
    let Some(presence) = S::presence(webhooks) else { return };
    let mut keeper = PresenceKeeper {
        shared,
        webhooks,
        fleet,
        presence,
        me: ByteString::from(&*shared.boot),
        readers: HashMap::new(),
        next_serial: 0,
        applied: 0,
        evicted: 0,
        views: VecDeque::from([(0, Vec::new())]),
        reports: 0,
        under_way: FuturesUnordered::new(),
    };
    loop {
        let wake_at = keeper.step();
        tokio::select! {
            () = presence.has_changed() => {}
            Some(outcome) = keeper.under_way.next() => keeper.take(outcome),
            () = sleep_until(wake_at) => {}
        }
    }
}

impl<S: Reported> PresenceKeeper<'_, S> {
    /// Sends due batches and reports; returns the time of the next step.
    fn step(&mut self) -> Instant {
        let now = Instant::now();
        let members = self.fleet.members().all();
        let nodes: Vec<_> = members.iter().map(|member| boot_of(member)).chain([self.me.clone()]).collect();
        self.presence.table().keep_nodes(&nodes, now);
        self.readers.retain(|boot, _| nodes.contains(boot));
        // Before new readers, to which these changes are no news.
        self.apply_own(now);
        for member in members.iter() {
            let (serial, known_until) = (self.next_serial, self.applied);
            let (received, is_sending, not_before) = (None, false, now);
            self.readers.entry(boot_of(member)).or_insert_with(|| LogReader {
                member: member.clone(),
                serial,
                received,
                evicted: 0,
                known_until,
                current_since: None,
                is_sending,
                is_absent: false,
                not_before,
                check_at: now,
            });
            self.next_serial += 1;
        }
        let live = self.live(now);
        let readers = self.readers.values().filter(|reader| !reader.is_absent);
        let least = readers.map(|reader| reader.received.unwrap_or_default()).min();
        let least = least.unwrap_or(self.applied).min(self.applied);
        self.note_view(&live, least);
        self.presence.log.prune(least);
        self.send_batches(now);
        self.send_reports(&live, now);
        let due = self.presence.table().next_due().filter(|_| self.reports < REPORTS_MAX);
        let next = now + MEMBERS_INTERVAL;
        due.map_or(next, |due| due.min(next))
    }

    /// Nodes that may report: all that do not stop and have received the users from before them. Others may be
    /// without presence.
    fn live(&self, now: Instant) -> Vec<ByteString> {
        let own = (!self.shared.has_begun_drain()).then(|| self.me.clone());
        let is_live = |reader: &LogReader| {
            let settling = if S::ONLY_LOSSES { SETTLING_TIME } else { Duration::ZERO };
            let is_current = reader.received.is_some_and(|received| received >= reader.known_until);
            let is_settled = reader.current_since.is_some_and(|since| since + settling <= now);
            !reader.member.is_draining() && is_current && is_settled
        };
        let others = self.readers.iter().filter(|(_, reader)| is_live(reader)).map(|(boot, _)| boot.clone());
        let mut live: Vec<_> = others.chain(own).collect();
        live.sort();
        live
    }

    /// Notes the nodes from which owners of later changes are chosen. Lists that no reader needs are dropped.
    fn note_view(&mut self, live: &[ByteString], least: u64) {
        if self.views.back().is_none_or(|(_, view)| view != live) {
            self.views.push_back((self.applied, live.to_vec()));
        }
        while self.views.len() > VIEWS_MAX || self.views.get(1).is_some_and(|(from, _)| *from <= least) {
            self.views.pop_front();
        }
    }

    /// Owner of a change. All nodes get the same, although the nodes of the fleet may change before they get it.
    fn owner(&self, change: &LoggedChange<S>) -> ByteString {
        let view = self.views.iter().rev().find(|(from, _)| *from < change.version).or(self.views.front());
        let view = view.map_or(&[][..], |(_, view)| view);
        presence_owner(view, change.subject.name()).and_then(|owner| view.get(owner)).unwrap_or(&self.me).clone()
    }

    fn apply_own(&mut self, now: Instant) {
        let version = self.presence.log.version();
        while self.applied < version {
            let (batch, evicted) = self.batch((self.applied, version), self.evicted, false);
            let until = batch.until;
            self.evicted = evicted;
            self.applied = if self.presence.table().apply(batch, now).is_ok() { until } else { 0 };
        }
    }

    /// Batch of the log between two positions, with the owner of each change, and the evicted position of its series.
    fn batch(&self, (since, to): (u64, u64), evicted: u64, is_known: bool) -> (SubjectBatch<S>, u64) {
        let batch = self.presence.log.batch(since, to, evicted);
        let (since, until, evicted) = (batch.since, batch.until, batch.evicted);
        let change = |change: LoggedChange<S>| {
            let owner = self.owner(&change);
            SubjectChange { subject: change.subject, is_here: change.is_here, owner }
        };
        let changes = batch.changes.into_iter().map(change).collect();
        (SubjectBatch { boot: self.me.clone(), since, until, is_known, is_whole: until >= to, changes }, evicted)
    }

    /// Sends each node its next batch, one at a time.
    fn send_batches(&mut self, now: Instant) {
        let version = self.presence.log.version();
        let is_behind = |reader: &LogReader| {
            let is_unchecked = |received| received > 0 && reader.check_at <= now;
            reader.received.is_none_or(|received| received < version || is_unchecked(received))
        };
        let behind = self
            .readers
            .iter()
            .filter(|(_, reader)| !reader.is_sending && reader.not_before <= now && is_behind(reader));
        let behind: Vec<_> = behind.map(|(boot, reader)| (boot.clone(), reader.received, reader.known_until)).collect();
        for (boot, received, known_until) in behind {
            let since = received.unwrap_or_default();
            let is_known = received.is_none() || since < known_until;
            let evicted = self.readers.get(&boot).map_or(0, |reader| reader.evicted);
            let to = if is_known { known_until } else { version };
            let (batch, evicted) = self.batch((since, to), evicted, is_known);
            let until = batch.until;
            let Some(reader) = self.readers.get_mut(&boot) else { continue };
            reader.is_sending = true;
            // A batch always has a JSON form.
            let body = Bytes::from(serde_json::to_vec(&batch).unwrap_or_default());
            let (fleet, member, serial) = (self.fleet, reader.member.clone(), reader.serial);
            self.under_way.push(Box::pin(async move {
                let request = PeerRequest::post(S::PATH, body);
                let answers = fleet.request(vec![member], &request, BATCH_TIMEOUT).await;
                let answer = answers.into_iter().find_map(|(_, answer)| answer.ok());
                let status = answer.as_ref().map(|answer| answer.status);
                // Refusals have no such body.
                let answer = answer.and_then(|answer| answer.read_body().ok()).unwrap_or_default();
                KeeperOutcome::Sent(SentBatch { boot, serial, until, evicted, status, answer })
            }));
        }
    }

    fn send_reports(&mut self, live: &[ByteString], now: Instant) {
        let room = REPORTS_MAX.saturating_sub(self.reports);
        let (due, ignored) = {
            let mut table = self.presence.table();
            (table.take_due(live, room, now), table.take_ignored())
        };
        if ignored > 0 && self.shared.limits.may_log(self.shared.uptime()) {
            warn!(
                ignored,
                flag = S::FLAG,
                "no events for further users or connections: the table is full, or their ids are too long"
            );
        }
        self.reports += due.len();
        for report in due {
            let webhooks = self.webhooks;
            self.under_way.push(Box::pin(async move {
                let is_accepted = webhooks.report(&report).await;
                KeeperOutcome::Reported(report, is_accepted)
            }));
        }
    }

    fn take(&mut self, outcome: KeeperOutcome<S>) {
        match outcome {
            KeeperOutcome::Reported(report, is_accepted) => {
                self.reports -= 1;
                self.presence.table().done(report, is_accepted, Instant::now());
            }
            KeeperOutcome::Sent(SentBatch { boot, serial, until, evicted, status, answer }) => {
                let reader = self.readers.get_mut(&boot).filter(|reader| reader.serial == serial);
                let Some(reader) = reader else { return };
                reader.is_sending = false;
                reader.is_absent = status == Some(StatusCode::NOT_FOUND);
                let retry = match status {
                    Some(StatusCode::OK) => {
                        let now = Instant::now();
                        (reader.received, reader.evicted) = (Some(until), evicted);
                        reader.check_at = now + CHECK_INTERVAL;
                        if until >= reader.known_until {
                            reader.current_since.get_or_insert(now);
                        }
                        let peer = reader.member.name();
                        if answer.lost_until.is_some_and(|until| self.presence.note_reported(until)) {
                            warn!(peer, "this node was lost to another, which has reported its clients: closing them");
                        }
                        return;
                    }
                    // The node has missed a batch, or had removed this node: it gets all users again.
                    Some(StatusCode::CONFLICT) => {
                        reader.received = None;
                        return;
                    }
                    Some(StatusCode::NOT_FOUND) => ABSENT_INTERVAL,
                    _ => RETRY_INTERVAL,
                };
                reader.not_before = Instant::now() + retry;
            }
        }
    }
}

fn boot_of(member: &FleetMember) -> ByteString {
    member.boot().into()
}
