//! Snapshot of this node: existing counters plus a census of each shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::condition_list::ConditionSnapshot;
use super::process_stats::{CpuTimes, ProcessStats, rates, totals};
use super::readiness::Readiness;
use super::rebalance_board::RebalanceBoard;
use super::rule_snapshot::{self, RuleCounts};
use super::snapshot::{
    ClientSummary, HubSnapshot, NodeSnapshot, PoolSnapshot, Rates, StoreSnapshot, WebhookSnapshot, client_summary,
};
use crate::engine::shard::{Census, ClientKind, ShardSender, Shared};
use crate::engine::upstream::{AppServerId, AppTarget, Hub, HubIndex};
use crate::features::inspection::{ClientSelection, Inspector, UnassignedClients, unassigned_by_hub};
use crate::fleet::own_phase;
use crate::ground::clock::unix_ms;
use crate::ground::metrics::{Counters, HubCounters};
use crate::ground::net::address::Address;

/// Maximum number of clients for which a snapshot lists each one.
const INDIVIDUALS_MAX: u64 = 64;

/// Maximum age of the previous sample for computing rates.
const COMPARED_AGE_MAX: Duration = Duration::from_secs(10);

/// Time for a shard to count its waiting clients.
const SHARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of pools in a snapshot.
const POOLS_MAX: usize = 500;

/// Maximum number of hubs in a snapshot.
const HUBS_MAX: usize = 200;

/// Takes snapshots of this node and computes rates from consecutive ones.
#[derive(Debug)]
pub(super) struct NodeSampler {
    readiness: Readiness,
    rebalance: RebalanceBoard,
    before: Option<PreviousSample>,
}

/// Values of the previous snapshot needed for rates.
#[derive(Debug)]
struct PreviousSample {
    at: Instant,
    totals: Rates,
    cpu: Option<CpuTimes>,
    rules: RuleCounts,
}

impl NodeSampler {
    pub(super) fn new(readiness: Readiness, rebalance: RebalanceBoard) -> Self {
        Self { readiness, rebalance, before: None }
    }

    pub(super) async fn sample(&mut self) -> NodeSnapshot {
        let shared = self.readiness.shared.clone();
        let kinds = census(shared.shards()).await;
        let clients = kinds.total();
        let individuals = if clients <= INDIVIDUALS_MAX { Some(individuals(&shared).await) } else { None };
        let level = |of: fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum();
        let mut node = NodeSnapshot {
            name: shared.settings.node.clone(),
            instance: shared.boot.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            state: own_phase(&shared).into(),
            address: shared.settings.advertise.as_ref().map(Address::to_string).unwrap_or_default(),
            uptime_s: shared.uptime().as_secs(),
            at_ms: unix_ms(),
            shards: shared.shards().len() as u64,
            not_ready: self.readiness.reasons_not_ready(),
            warnings: self.readiness.unserved_warning().into_iter().collect(),
            conditions: ConditionSnapshot::active(&shared.settings.node, &shared.reports.conditions),
            clients,
            opened: level(|counters| counters.hubs().map(HubCounters::opened).sum()),
            sockets: shared.sockets(),
            groups: level(|counters| counters.groups.get()),
            users: level(|counters| counters.users.get()),
            away: level(|counters| counters.away.get()),
            rebalance: self.rebalance.shown(),
            outbox_bytes: level(|counters| counters.outbox_bytes.get()),
            store: self
                .readiness
                .store()
                .map(|store| StoreSnapshot { is_connected: store.is_connected(), unwritten: store.unwritten() as u64 }),
            hubs: hubs(&shared, &kinds, &unassigned_clients(&shared).await),
            links: pools(&shared, &kinds),
            rules: rule_snapshot::rules(&shared.hubs.rules()),
            individuals,
            ..NodeSnapshot::default()
        };
        self.compare(&mut node);
        node
    }

    /// Adds rates since the previous snapshot.
    fn compare(&mut self, node: &mut NodeSnapshot) {
        let (at, totals, stats) = (Instant::now(), totals(&self.readiness.shared), ProcessStats::read_stats());
        let before = self.before.take().filter(|before| at - before.at <= COMPARED_AGE_MAX);
        let seconds = before.as_ref().map_or(0.0, |before| (at - before.at).as_secs_f64());
        let cpu = before.as_ref().and_then(|before| before.cpu);
        node.process = stats.process(cpu, seconds);
        node.host = stats.host(cpu);
        let rules = rule_snapshot::compare(&mut node.rules, before.as_ref().map(|before| (&before.rules, seconds)));
        node.rates = before.map(|before| rates(&totals, &before.totals, seconds));
        self.before = Some(PreviousSample { at, totals, cpu: stats.cpu, rules });
    }
}

async fn census(shards: &[ShardSender]) -> Census {
    let counts = join_all(shards.iter().map(|shard| shard.inspect(|state| Inspector::at_shard(state).census()))).await;
    let mut all = Census::default();
    counts.iter().flatten().for_each(|counted| all.merge(counted));
    all
}

async fn individuals(shared: &Shared) -> Vec<ClientSummary> {
    let mut all = Vec::new();
    for shard in shared.shards() {
        let most = usize::try_from(INDIVIDUALS_MAX).unwrap_or(usize::MAX);
        let mut from = Some(0);
        while let Some(at) = from {
            let Some((rows, next)) =
                shard.inspect(move |state| Inspector::at_shard(state).list(&ClientSelection::Everyone, at, most)).await
            else {
                break;
            };
            all.extend(rows.iter().map(|row| client_summary(shared, row)));
            from = next;
        }
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    all
}

/// Clients that wait for an app server, by hub. All shards with such clients are asked together.
pub(crate) async fn unassigned_clients(shared: &Shared) -> HashMap<HubIndex, UnassignedClients> {
    let shards = shared.shards().iter().zip(shared.counters());
    let asked = shards.filter(|(_, counters)| counters.homeless.get() > 0);
    let counts = asked.map(|(shard, _)| timeout(SHARD_TIMEOUT, shard.inspect(|state| unassigned_by_hub(state))));
    let mut sums = HashMap::<_, UnassignedClients>::new();
    for (hub, clients) in join_all(counts).await.into_iter().filter_map(|counts| counts.ok().flatten()).flatten() {
        sums.entry(hub).or_default().merge_others(clients);
    }
    sums
}

fn hubs(shared: &Shared, kinds: &Census, unassigned: &HashMap<HubIndex, UnassignedClients>) -> Vec<HubSnapshot> {
    let snapshot = |hub: &Arc<Hub>| {
        let of_hub = || kinds.iter().filter(|(kind, _)| kind.hub == hub.index());
        let by = |label: fn(&ClientKind) -> &'static str| {
            let mut counts = BTreeMap::<_, u64>::new();
            of_hub().for_each(|(kind, clients)| *counts.entry(label(kind)).or_default() += clients);
            counts.into_iter().map(|(label, clients)| (label.to_owned(), clients)).collect()
        };
        let counted = |of: fn(&HubCounters) -> u64| {
            shared.counters().iter().map(|counters| of(counters.hub(hub.index().get()))).sum()
        };
        HubSnapshot {
            name: hub.name().into(),
            path: hub.settings().path.clone(),
            clients: of_hub().map(|(_, clients)| clients).sum(),
            homeless: unassigned.get(&hub.index()).map_or(0, |clients| clients.count as u64),
            transports: by(|kind| kind.transport),
            protocols: by(|kind| kind.protocol),
            compression_bytes: [counted(|hub| hub.compression_plain.get()), counted(|hub| hub.compression_sent.get())],
        }
    };
    shared.hubs.living().iter().take(HUBS_MAX).map(snapshot).collect()
}

fn webhook(target: &AppTarget) -> Option<WebhookSnapshot> {
    let AppTarget::Memory(dialler) = target else { return None };
    let state = dialler.back_end()?;
    let (failing_since_ms, problem) = state.failing.unzip();
    Some(WebhookSnapshot {
        requests: state.requests,
        failures: state.failures,
        in_flight: state.in_flight,
        latency_us: u64::try_from(state.latency.as_micros()).unwrap_or(u64::MAX),
        failing_since_ms,
        problem,
    })
}

fn pools(shared: &Shared, kinds: &Census) -> Vec<PoolSnapshot> {
    let mut at_home = HashMap::<(HubIndex, AppServerId), u64>::new();
    kinds.iter().for_each(|(kind, clients)| *at_home.entry((kind.hub, kind.app)).or_default() += clients);
    let mut pools = Vec::new();
    for hub in shared.hubs.living().iter() {
        for pool in hub.pools().iter() {
            let app = &pool.app;
            let (open, resuming) = (pool.open_links(), pool.resuming());
            pools.push(PoolSnapshot {
                hub: hub.name().into(),
                app: app.instance.clone(),
                app_name: app.name.clone(),
                address: app.target.to_string(),
                group: app.group.name.to_string(),
                is_mirror: app.group.is_mirror(),
                is_leaving: pool.is_draining() || !app.is_listed(),
                open: open as u64,
                resuming: resuming as u64,
                down: pool.down() as u64,
                clients: at_home.get(&(hub.index(), app.id)).copied().unwrap_or_default(),
                webhook: webhook(&app.target),
            });
        }
    }
    pools.truncate(POOLS_MAX);
    pools
}
