//! Conditions of client traffic: refused clients, failed, hung and queued calls, slow clients, reconnect storms,
//! drains, and uneven nodes, of which one may get no clients at all.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use trunkline_protocol::cause::Cause;

use crate::edge::observer::{FleetSnapshot, NodeSnapshot};
use crate::engine::shard::{ShardSender, Shared};
use crate::engine::upstream::{Hub, HubIndex};
use crate::features::inspection::{HungCallSearch, HungCalls, WaitingCalls};
use crate::fleet::{Fleet, MemberState, PeerRequest};
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::metrics::{Counters, HUBS_MAX, HubCounters};

/// Number of seconds over which refusals are counted.
const WINDOW_S: usize = 30;

/// Number of refusals within the window from which they are reported, if also one in five clients is refused.
const REFUSED_MIN: u64 = 10;

/// Number of failed calls within the window from which they are reported, if also one in five calls fails. More than
/// the calls of one run of `trunkline doctor`, which all fail.
const FAILED_MIN: u64 = 20;

/// Number of slow clients closed within the window, and their part of all clients, from which they are reported.
const SLOW_MIN: u64 = 3;
const SLOW_PART: u64 = 500;

/// New clients per second from which a storm is possible, and factor above the usual rate.
const STORM_MIN: f64 = 50.0;
const STORM_FACTOR: f64 = 10.0;

/// Time constant of the usual rate of new clients, in seconds.
const USUAL_S: f64 = 600.0;

/// Time after the drain of another node, or after the start of this one, in which clients arrive here.
const ARRIVAL_TIME: Duration = Duration::from_secs(30);

/// Time for which an event is reported: longer than two scrapes of Prometheus.
const REPORTED_FOR: Duration = Duration::from_secs(150);

/// Number of evaluations between two comparisons of all nodes.
const COMPARE_INTERVAL: u64 = 10;

/// Time for the other nodes to answer.
const COMPARE_TIMEOUT: Duration = Duration::from_millis(500);

/// Number of clients of all nodes from which they should be even, and of new clients here of which some should have
/// reached each other node.
const EVEN_MIN: u64 = 40;

/// Number of evaluations between two searches for calls without a result.
const HUNG_INTERVAL: u64 = 10;

/// Time for a shard to search all its clients.
const HUNG_TIMEOUT: Duration = Duration::from_secs(2);

/// Number of clients with such calls, and their part of the clients of a hub, from which they are reported.
const HUNG_MIN: u64 = 3;
const HUNG_PART: u64 = 100;

/// Part of the clients of a hub that must have queued calls: any client may call too often.
const QUEUED_PART: u64 = 20;

/// Causes of refusals that an operator can end. Others are routine, or have conditions of their own.
fn is_reported(cause: Cause) -> bool {
    use Cause as C;
    matches!(cause, C::TokenRefused | C::OriginRefused | C::AppUnreachable | C::NodeUnreachable | C::TransportRefused)
        || cause.label().starts_with("limit_")
}

pub(super) struct TrafficConditions {
    shared: Arc<Shared>,
    fleet: Fleet,
    /// Readings of the last seconds, oldest first.
    readings: VecDeque<TrafficReading>,
    usual_opened: f64,
    others_drained: Option<Instant>,
    evaluations: u64,
    /// Findings of the last comparison of all nodes.
    uneven: Vec<Finding>,
    /// Other ready nodes, by boot id.
    last_arrivals: HashMap<String, LastArrival>,
    /// Findings of the last search for calls without a result.
    waiting: Vec<Finding>,
}

/// Numbers when another ready node last had a new client.
#[derive(Clone, Copy)]
struct LastArrival {
    at: Instant,
    opened_here: u64,
    opened_there: u64,
    clients_there: u64,
}

struct TrafficReading {
    opened: u64,
    slow: u64,
    over_budget: u64,
    refused: Vec<(Cause, u64)>,
    /// Calls that ended with an error, and messages of clients, by hub.
    calls: BTreeMap<String, (u64, u64)>,
}

impl TrafficReading {
    fn of(shared: &Shared) -> Self {
        let sum = |of: &dyn Fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum::<u64>();
        let hubs = |of: &dyn Fn(&HubCounters) -> u64| sum(&|counters| counters.hubs().map(of).sum());
        let refused = |cause| {
            let all = sum(&|counters| counters.requests_refused.of(cause) + counters.sockets_refused.of(cause));
            all.saturating_sub(shared.reports.refusals.app_servers(cause))
        };
        Self {
            opened: hubs(&HubCounters::opened),
            slow: hubs(&|hub| hub.closed.of(Cause::SlowClient)),
            over_budget: hubs(&|hub| hub.closed.of(Cause::OutboxTotal)),
            calls: calls(shared),
            refused: Cause::all().filter(|cause| is_reported(*cause)).map(|cause| (cause, refused(cause))).collect(),
        }
    }
}

/// Calls by hub. Hubs with shared counters are one entry.
fn calls(shared: &Shared) -> BTreeMap<String, (u64, u64)> {
    let mut calls = BTreeMap::<String, (u64, u64)>::new();
    for hub in &shared.hubs.living() {
        let (errors, messages) = calls_of(shared, hub);
        if hub.index().get() >= HUBS_MAX {
            calls.insert("(others)".to_owned(), (errors, messages));
        } else {
            let sum = calls.entry(hub.name().to_owned()).or_default();
            *sum = (sum.0 + errors, sum.1 + messages);
        }
    }
    calls
}

/// Calls of a hub that ended with an error, and messages of its clients.
fn calls_of(shared: &Shared, hub: &Hub) -> (u64, u64) {
    let counters = || shared.counters().iter().map(|counters| counters.hub(hub.index().get()));
    (counters().map(|hub| hub.call_errors.get()).sum(), counters().map(|hub| hub.messages_up.get()).sum())
}

impl TrafficConditions {
    pub(super) fn new(shared: Arc<Shared>, fleet: Fleet) -> Self {
        Self {
            shared,
            fleet,
            readings: VecDeque::new(),
            usual_opened: 0.0,
            others_drained: None,
            evaluations: 0,
            uneven: Vec::new(),
            last_arrivals: HashMap::new(),
            waiting: Vec::new(),
        }
    }

    pub(super) async fn findings(&mut self, now: Instant) -> Vec<Finding> {
        let reading = TrafficReading::of(&self.shared);
        if self.evaluations.is_multiple_of(COMPARE_INTERVAL) && !self.fleet.members().is_alone() {
            self.uneven = self.compare_nodes(reading.opened, now).await;
        }
        if self.evaluations.is_multiple_of(HUNG_INTERVAL) {
            self.waiting = self.waiting_calls().await;
        }
        self.evaluations += 1;
        if let Some(before) = self.readings.front() {
            let events = [self.slow_clients(before, &reading), self.storm(&reading, now)];
            for event in events.into_iter().flatten() {
                self.shared.reports.conditions.report(event, Some(REPORTED_FOR));
            }
        }
        let mut findings = self.refusals(&reading);
        findings.extend(self.failed_calls(&reading));
        let last = self.readings.back().map_or(reading.opened, |last| last.opened);
        self.usual_opened += (per_second(reading.opened, last, 1) - self.usual_opened) / USUAL_S;
        self.readings.push_back(reading);
        if self.readings.len() > WINDOW_S {
            self.readings.pop_front();
        }
        findings.extend(self.uneven.iter().chain(&self.waiting).cloned());
        if self.shared.has_begun_drain() {
            let left = self.shared.sockets() + self.shared.clients_away();
            findings.push(Finding::new(ConditionKind::DrainSlow, "this node", format!("clients left: {left}")));
        }
        findings
    }

    /// Causes for which many clients are refused, with the latest reason.
    fn refusals(&self, reading: &TrafficReading) -> Vec<Finding> {
        let Some(before) = self.readings.front() else { return Vec::new() };
        let opened = reading.opened.saturating_sub(before.opened);
        let causes = reading.refused.iter().zip(&before.refused);
        let counts = causes.map(|(&(cause, now), &(_, before))| (cause, now.saturating_sub(before)));
        let many = counts.filter(|(_, count)| *count >= REFUSED_MIN && count * 5 >= opened);
        let seconds = self.readings.len();
        many.map(|(cause, count)| {
            let reason = self.shared.reports.refusals.reason(cause).unwrap_or_else(|| cause.text().to_owned());
            let detail = format!("{count} in {seconds} s, {opened} accepted: {reason}");
            Finding::new(ConditionKind::ClientsRefused, cause.label(), detail)
        })
        .collect()
    }

    /// Hubs with many calls that end with an error. Webhooks have conditions of their own: they distinguish a failed
    /// request from an error that the back end returns.
    fn failed_calls(&self, reading: &TrafficReading) -> Vec<Finding> {
        let Some(before) = self.readings.front() else { return Vec::new() };
        let of = |(hub, (errors, messages)): (&String, &(u64, u64))| {
            if self.shared.hubs.named(hub).is_some_and(|hub| hub.has_webhook()) {
                return None;
            }
            let (old_errors, old_messages) = before.calls.get(hub)?;
            let (errors, messages) = (errors.saturating_sub(*old_errors), messages.saturating_sub(*old_messages));
            let detail = format!("{errors} errors, {messages} messages of clients in {} s", self.readings.len());
            let are_many = errors >= FAILED_MIN && errors * 5 >= messages;
            are_many.then(|| Finding::new(ConditionKind::CallsFail, hub.as_str(), detail))
        };
        reading.calls.iter().filter_map(of).collect()
    }

    /// Hubs with many clients whose calls have no result for too long, or wait for earlier ones.
    async fn waiting_calls(&self) -> Vec<Finding> {
        let after_s = Some(self.shared.settings.rehoming.calls_hang_after_s).filter(|after_s| *after_s > 0);
        let after_s = after_s.unwrap_or(u32::MAX);
        let searches = self.shared.shards().iter().map(|shard| timeout(HUNG_TIMEOUT, search_waiting(shard, after_s)));
        let mut hubs = BTreeMap::<String, (WaitingCalls, u64)>::new();
        for (index, calls) in join_all(searches).await.into_iter().filter_map(|found| found.ok().flatten()).flatten() {
            let Some(hub) = self.shared.hubs.at(index) else { continue };
            let counters = self.shared.counters().iter();
            let clients = counters.map(|counters| counters.hub(index.get()).open()).sum();
            let (sum, most) = hubs.entry(hub.name().to_owned()).or_default();
            sum.merge_others(calls);
            *most = clients;
        }
        let findings = |(hub, (WaitingCalls { hung, queued }, clients)): (String, (WaitingCalls, u64))| {
            let finding = |kind, HungCalls { clients: waiting, longest_s }, waiting_min| {
                let detail = format!("{waiting} of {clients} clients wait, for up to {longest_s} s");
                (waiting >= waiting_min).then(|| Finding::new(kind, &hub, detail))
            };
            let hung = finding(ConditionKind::CallsHang, hung, HUNG_MIN.max(clients / HUNG_PART));
            let queued = finding(ConditionKind::CallsQueue, queued, clients.div_ceil(QUEUED_PART).max(1));
            [hung, queued].into_iter().flatten().collect::<Vec<_>>()
        };
        hubs.into_iter().flat_map(findings).collect()
    }

    fn slow_clients(&self, before: &TrafficReading, reading: &TrafficReading) -> Option<Finding> {
        let slow = reading.slow.saturating_sub(before.slow);
        let over_budget = reading.over_budget.saturating_sub(before.over_budget);
        let enough = SLOW_MIN.max(self.shared.sockets() / SLOW_PART);
        let (subject, count) = match over_budget > 0 {
            true => ("--outbox-total-max-bytes", over_budget),
            false => ("--outbox-max-bytes", slow),
        };
        let detail = format!("{count} clients in {} s", self.readings.len());
        (over_budget > 0 || slow >= enough).then(|| Finding::new(ConditionKind::SlowClientsClosed, subject, detail))
    }

    /// Checks the rate of new clients of the last 5 seconds. After a start or a drain, many are expected.
    fn storm(&mut self, reading: &TrafficReading, now: Instant) -> Option<Finding> {
        if self.fleet.members().all().iter().any(|member| member.is_draining()) {
            self.others_drained = Some(now);
        }
        let is_expected = self.shared.uptime() < ARRIVAL_TIME || self.has_drained_lately(now);
        let before = self.readings.iter().rev().nth(4)?;
        let rate = per_second(reading.opened, before.opened, 5);
        let is_storm = rate > STORM_MIN && rate > STORM_FACTOR * self.usual_opened && !is_expected;
        let detail = format!("{rate:.0} per second, usually {:.1}", self.usual_opened);
        is_storm.then(|| Finding::new(ConditionKind::ReconnectStorm, "this node", detail))
    }

    /// Whether clients of a drained node may still arrive.
    fn has_drained_lately(&self, now: Instant) -> bool {
        self.others_drained.is_some_and(|at| now.saturating_duration_since(at) < ARRIVAL_TIME)
    }

    /// Compares the clients of all nodes; reports this node if it has more than twice its share, and others that get
    /// none.
    async fn compare_nodes(&mut self, opened: u64, now: Instant) -> Vec<Finding> {
        let answers = self.fleet.request_all(&PeerRequest::get("/api/fleet?scope=node"), COMPARE_TIMEOUT).await;
        let fleets = answers.into_iter().filter_map(|(_, answer)| answer.ok()?.read_body::<FleetSnapshot>().ok());
        let others: Vec<NodeSnapshot> = fleets.flat_map(|fleet| fleet.nodes).collect();
        let own = self.shared.sockets();
        let all = own + others.iter().map(|node| node.clients).sum::<u64>();
        let is_uneven = own >= EVEN_MIN && !others.is_empty() && own * (others.len() as u64 + 1) > 2 * all - all / 10;
        let detail = format!("{own} of {all} clients of {} nodes", others.len() + 1);
        let uneven = Finding::new(ConditionKind::ClientsUneven, self.shared.settings.node.as_str(), detail);
        let mut findings = self.without_arrivals(&others, (own, opened), now);
        findings.extend(is_uneven.then_some(uneven));
        findings
    }

    /// Ready nodes that had no new client while many arrived here. A balancer may prefer the node with fewer clients,
    /// and must first notice the end of a drain.
    fn without_arrivals(&mut self, others: &[NodeSnapshot], (own, opened): (u64, u64), now: Instant) -> Vec<Finding> {
        let (before, is_draining) = (std::mem::take(&mut self.last_arrivals), self.has_drained_lately(now));
        let mut findings = Vec::new();
        for node in others.iter().filter(|node| node.state == MemberState::Ready) {
            let seen = before
                .get(&node.instance)
                .copied()
                .filter(|seen| !is_draining && seen.opened_there == node.opened && node.clients <= seen.clients_there);
            let (opened_there, clients_there) = (node.opened, node.clients);
            let seen = seen.unwrap_or(LastArrival { at: now, opened_here: opened, opened_there, clients_there });
            self.last_arrivals.insert(node.instance.clone(), seen);
            let new = opened.saturating_sub(seen.opened_here);
            if new >= EVEN_MIN && node.clients < own {
                let seconds = now.saturating_duration_since(seen.at).as_secs();
                let detail = format!("none of {new} in {seconds} s, which this node got; clients: {clients_there}");
                findings.push(Finding::new(ConditionKind::NodeGetsNoClients, &node.name, detail));
            }
        }
        findings
    }
}

async fn search_waiting(shard: &ShardSender, after_s: u32) -> Option<HashMap<HubIndex, WaitingCalls>> {
    let (mut search, mut is_over) = (HungCallSearch::new(after_s), false);
    while !is_over {
        let step = shard.inspect(move |state| {
            let is_over = search.step(state);
            (search, is_over)
        });
        (search, is_over) = step.await?;
    }
    Some(search.found)
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
fn per_second(now: u64, before: u64, seconds: u64) -> f64 {
    now.saturating_sub(before) as f64 / seconds as f64
}
