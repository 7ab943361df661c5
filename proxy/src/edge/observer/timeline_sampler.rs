//! Sampler of a node's timeline: one task on the main thread that reads existing counters.
//!
//! ```text
//!  each second ──────► standing of nodes and app servers ──► marks
//!  each ten seconds ─► counters, links, /proc ─────────────► sample
//! ```
//!
//! No shard is queried, so message delivery never waits.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connection_events::ConnectionTotals;
use super::process_stats::{CpuTimes, ProcessStats, rates, totals};
use super::snapshot::Rates;
use super::timeline::{NodeTimeline, SAMPLE_INTERVAL_MS, Timeline, TimelineSample};
use super::timeline_mark::{Attendance, PartyChange, Standing, TimelineMark, TimelineParty};
use crate::engine::shard::Shared;
use crate::engine::upstream::Pool;
use crate::fleet::{Fleet, FleetMember, MemberState, own_phase};
use crate::ground::clock::unix_ms;
use crate::ground::metrics::Counters;

/// Interval between checks of nodes and app servers, in milliseconds.
const LOOK_INTERVAL_MS: u64 = 1_000;

/// Uptime below which discovered parties are not marked: this node is the one that has arrived.
const SETTLING: Duration = Duration::from_secs(20);

/// Timeline of this node. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct TimelineKeeper {
    shared: Arc<Shared>,
    timeline: Arc<Mutex<Timeline>>,
}

#[derive(Debug)]
struct TimelineSampler {
    shared: Arc<Shared>,
    fleet: Fleet,
    attendance: Attendance,
    /// Other nodes when last checked, to determine how a removed node has left.
    members: Vec<Arc<FleetMember>>,
    /// Pools of each app server when last checked, by instance id.
    apps: BTreeMap<String, Vec<Arc<Pool>>>,
    before: CounterReading,
}

#[derive(Debug)]
struct CounterReading {
    at: Instant,
    totals: Rates,
    connections: ConnectionTotals,
    cpu: Option<CpuTimes>,
}

impl TimelineKeeper {
    /// Starts the task. Needs a runtime.
    pub(super) fn start(shared: Arc<Shared>, fleet: Fleet) -> Self {
        let timeline = Arc::<Mutex<Timeline>>::default();
        tokio::spawn(keep(Arc::downgrade(&timeline), TimelineSampler::new(shared.clone(), fleet)));
        Self { shared, timeline }
    }

    pub(super) fn since(&self, ms: u64) -> NodeTimeline {
        lock(&self.timeline).since(ms, (&self.shared.settings.node, &self.shared.boot))
    }
}

/// Checks and samples until the timeline is dropped. All nodes sample at about the same times.
async fn keep(timeline: Weak<Mutex<Timeline>>, mut sampler: TimelineSampler) {
    let to_next_ms = SAMPLE_INTERVAL_MS - unix_ms() % SAMPLE_INTERVAL_MS;
    let mut next_sample = Instant::now() + Duration::from_millis(to_next_ms);
    let mut looks = interval_at(
        Instant::now() + Duration::from_millis(to_next_ms % LOOK_INTERVAL_MS),
        Duration::from_millis(LOOK_INTERVAL_MS),
    );
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        looks.tick().await;
        let Some(timeline) = timeline.upgrade() else { return };
        let marks = sampler.find_marks(unix_ms());
        let is_due = Instant::now() >= next_sample;
        let sample = is_due.then(|| sampler.sample());
        while next_sample <= Instant::now() {
            next_sample += Duration::from_millis(SAMPLE_INTERVAL_MS);
        }
        let mut timeline = lock(&timeline);
        marks.into_iter().for_each(|mark| timeline.mark(mark));
        sample.into_iter().for_each(|sample| timeline.add_sample(sample));
    }
}

fn lock(timeline: &Mutex<Timeline>) -> MutexGuard<'_, Timeline> {
    timeline.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TimelineSampler {
    fn new(shared: Arc<Shared>, fleet: Fleet) -> Self {
        let before = CounterReading::now(&shared);
        Self { shared, fleet, attendance: Attendance::default(), members: Vec::new(), apps: BTreeMap::new(), before }
    }

    fn sample(&mut self) -> TimelineSample {
        let (shared, stats) = (&self.shared, ProcessStats::read_stats());
        let connections = ConnectionTotals::read_totals(shared);
        let now = CounterReading { at: Instant::now(), totals: totals(shared), connections, cpu: stats.cpu };
        let seconds = (now.at - self.before.at).as_secs_f64();
        let rates = rates(&now.totals, &self.before.totals, seconds);
        let usage = stats.process(self.before.cpu, seconds);
        let events = now.connections.since(&self.before.connections, seconds);
        self.before = now;
        let sum = |of: fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum();
        let links = |pools: &Vec<Arc<Pool>>| pools.iter().map(|pool| pool.open_links() as u64).sum::<u64>();
        TimelineSample {
            at_ms: unix_ms(),
            clients: sum(|counters| counters.hubs().map(|hub| hub.open()).sum()),
            messages_up: rates.messages_up,
            deliveries: rates.deliveries,
            links: pools_by_app(shared).values().map(links).sum(),
            cpu_percent: usage.cpu_percent,
            memory_bytes: usage.memory_bytes,
            outbox_bytes: sum(|counters| counters.outbox_bytes.get()),
            opened: rates.opened,
            events,
        }
    }

    /// Checks the standing of nodes and app servers; returns the changes.
    fn find_marks(&mut self, at_ms: u64) -> Vec<TimelineMark> {
        let mut marks = Vec::new();
        self.mark_own_node(at_ms, &mut marks);
        self.mark_other_nodes(at_ms, &mut marks);
        self.mark_apps(at_ms, &mut marks);
        marks
    }

    fn mark_own_node(&mut self, at_ms: u64, marks: &mut Vec<TimelineMark>) {
        let (id, name) = (self.shared.boot.to_string(), self.shared.settings.node.clone());
        let standing = match MemberState::from(own_phase(&self.shared)) {
            MemberState::Draining => Standing::Leaving,
            _ => Standing::Here,
        };
        if let Some(change) = self.attendance.note_standing(TimelineParty::Node, &id, standing) {
            let uptime_ms = u64::try_from(self.shared.uptime().as_millis()).unwrap_or_default();
            let at_ms = if change == PartyChange::Came { at_ms.saturating_sub(uptime_ms) } else { at_ms };
            marks.push(TimelineMark { at_ms, party: TimelineParty::Node, id, name, change });
        }
    }

    fn mark_other_nodes(&mut self, at_ms: u64, marks: &mut Vec<TimelineMark>) {
        let (now_ms, members) = (self.fleet.members().now_ms(), self.fleet.members().all());
        let boots: HashSet<_> = members.iter().map(|member| member.boot()).collect();
        let before = std::mem::take(&mut self.members);
        let gone = before.iter().filter(|member| !boots.contains(member.boot()));
        let gone = gone.map(|member| (member, standing_at_end(member.is_draining())));
        let there = members.iter().map(|member| (member, standing_of_node(member, now_ms)));
        for (member, standing) in gone.chain(there) {
            let party = (TimelineParty::Node, member.boot(), member.name());
            marks.extend(self.note_party(party, standing, at_ms));
        }
        self.members = members.to_vec();
    }

    fn mark_apps(&mut self, at_ms: u64, marks: &mut Vec<TimelineMark>) {
        let apps = pools_by_app(&self.shared);
        let before = std::mem::take(&mut self.apps);
        let gone = before.iter().filter(|(instance, _)| !apps.contains_key(*instance));
        let gone = gone
            .map(|(instance, pools)| (instance, pools, standing_at_end(pools.iter().any(|pool| pool.is_draining()))));
        let there = apps.iter().map(|(instance, pools)| (instance, pools, standing_of_app(pools)));
        for (instance, pools, standing) in gone.chain(there) {
            let name = pools.first().map(|pool| pool.app.name.clone()).unwrap_or_default();
            marks.extend(self.note_party((TimelineParty::App, instance, &name), standing, at_ms));
        }
        self.apps = apps;
    }

    fn note_party(
        &mut self,
        (party, id, name): (TimelineParty, &str, &str),
        standing: Standing,
        at_ms: u64,
    ) -> Option<TimelineMark> {
        let change = self.attendance.note_standing(party, id, standing)?;
        let is_old_news = change == PartyChange::Came && self.shared.uptime() < SETTLING;
        (!is_old_news).then(|| TimelineMark { at_ms, party, id: id.to_owned(), name: name.to_owned(), change })
    }
}

impl CounterReading {
    fn now(shared: &Shared) -> Self {
        let (totals, connections) = (totals(shared), ConnectionTotals::read_totals(shared));
        Self { at: Instant::now(), totals, connections, cpu: ProcessStats::read_stats().cpu }
    }
}

/// Pools of links to app servers. Webhooks have requests instead of links.
fn pools_by_app(shared: &Shared) -> BTreeMap<String, Vec<Arc<Pool>>> {
    let mut apps = BTreeMap::<_, Vec<_>>::new();
    let pools = shared.hubs.living().iter().flat_map(|hub| hub.pools().to_vec()).collect::<Vec<_>>();
    for pool in pools.into_iter().filter(|pool| !pool.app.target.is_webhook()) {
        apps.entry(pool.app.instance.clone()).or_default().push(pool);
    }
    apps
}

/// Standing of a removed party.
fn standing_at_end(has_said_so: bool) -> Standing {
    if has_said_so { Standing::Left } else { Standing::Lost }
}

fn standing_of_node(member: &FleetMember, now_ms: u64) -> Standing {
    match member.state(now_ms) {
        _ if member.is_draining() => Standing::Leaving,
        MemberState::Late | MemberState::Unreachable => Standing::Away,
        MemberState::Starting | MemberState::Ready | MemberState::Draining => Standing::Here,
    }
}

/// Standing of an app server: present while any link session lives.
fn standing_of_app(pools: &[Arc<Pool>]) -> Standing {
    match () {
        () if pools.iter().any(|pool| pool.is_draining()) => Standing::Leaving,
        () if pools.iter().any(|pool| pool.open_links() + pool.resuming() > 0) => Standing::Here,
        () => Standing::Away,
    }
}
