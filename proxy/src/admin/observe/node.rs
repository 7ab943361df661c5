//! This node as it is now: counters and lists that are there anyway, and what shards have counted.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::view::{Client, HubView, LinkView, Node, Rates};
use super::vitals::{Spent, Vitals};
use crate::admin::Admin;
use crate::config::Address;
use crate::metrics::{Counters, Direction, FrameKind, HubCounters};
use crate::shard::directory::{Census, Kind};
use crate::shard::{Row, ShardSender, Shared, Which};
use crate::upstream::{AppServerId, Hub, HubIndex, Pool};

/// So many clients of a node are told of one by one; of more only the numbers are.
const INDIVIDUALS_MAX: u64 = 64;

/// Rates are of the time since the look before, unless that is longer ago.
const LOOK_BEFORE_MAX: Duration = Duration::from_secs(10);

/// Pools that are told of.
const LINKS_MAX: usize = 500;

/// Hubs that are told of.
const HUBS_MAX: usize = 200;

/// Gathers what there is to tell of this node.
#[derive(Debug)]
pub(super) struct Gatherer {
    admin: Admin,
    instance: String,
    before: Option<Before>,
}

/// A look before this one.
#[derive(Debug)]
struct Before {
    at: Instant,
    totals: Rates,
    spent: Option<Spent>,
}

impl Gatherer {
    pub(super) fn new(admin: Admin, instance: String) -> Self {
        Self { admin, instance, before: None }
    }

    pub(super) async fn gather(&mut self) -> Node {
        let shared = self.admin.shared.clone();
        let kinds = census(shared.shards()).await;
        let clients = kinds.total();
        let individuals = if clients <= INDIVIDUALS_MAX { Some(individuals(&shared).await) } else { None };
        let level = |of: fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum();
        let mut node = Node {
            name: shared.settings.node.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            address: shared.settings.advertise.as_ref().map(Address::to_string).unwrap_or_default(),
            uptime_s: shared.uptime().as_secs(),
            at_ms: unix_ms(),
            shards: shared.shards().len() as u64,
            not_ready: self.admin.reasons_not_ready(),
            clients,
            sockets: shared.sockets(),
            groups: level(|counters| counters.groups.get()),
            users: level(|counters| counters.users.get()),
            outbox_bytes: level(|counters| counters.outbox_bytes.get()),
            hubs: hubs(&shared, &kinds),
            links: links(&shared, &kinds),
            individuals,
            ..Node::default()
        };
        self.compare(&mut node);
        node
    }

    /// What has changed since the look before.
    fn compare(&mut self, node: &mut Node) {
        let (at, totals, vitals) = (Instant::now(), totals(&self.admin.shared), Vitals::read());
        let before = self.before.take().filter(|before| at - before.at <= LOOK_BEFORE_MAX);
        let seconds = before.as_ref().map_or(0.0, |before| (at - before.at).as_secs_f64());
        let spent = before.as_ref().and_then(|before| before.spent);
        node.process = vitals.process(spent, seconds);
        node.host = vitals.host(spent);
        node.rates = before.map(|before| rates(&totals, &before.totals, seconds));
        self.before = Some(Before { at, totals, spent: vitals.spent });
    }
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All clients by kind.
async fn census(shards: &[ShardSender]) -> Census {
    let counts = join_all(shards.iter().map(|shard| shard.visit(|shard| shard.census()))).await;
    let mut all = Census::default();
    counts.iter().flatten().for_each(|counted| all.merge(counted));
    all
}

async fn individuals(shared: &Shared) -> Vec<Client> {
    let mut all = Vec::new();
    for shard in shared.shards() {
        let most = usize::try_from(INDIVIDUALS_MAX).unwrap_or(usize::MAX);
        let mut from = Some(0);
        while let Some(at) = from {
            let Some((rows, next)) = shard.visit(move |shard| shard.list(&Which::Everyone, at, most)).await else {
                break;
            };
            all.extend(rows.iter().map(|row| client(shared, row)));
            from = next;
        }
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    all
}

/// What lists tell of a client.
pub(super) fn client(shared: &Shared, row: &Row) -> Client {
    let hubs = shared.hubs.all();
    let hub = hubs.get(row.hub.get());
    Client {
        id: row.id.clone(),
        node: shared.settings.node.clone(),
        hub: hub.map(|hub| hub.name().to_owned()).unwrap_or_default(),
        app: shared.hubs.instance(row.app).to_string(),
        app_name: hub.and_then(|hub| pool_of(hub, row.app)).map(|pool| pool.app().name.clone()).unwrap_or_default(),
        user: row.user.clone(),
        address: row.address.clone(),
        transport: row.transport.into(),
        protocol: row.protocol.into(),
        state: row.state.into(),
        age_s: row.age_s,
    }
}

fn pool_of(hub: &Hub, app: AppServerId) -> Option<std::sync::Arc<Pool>> {
    hub.pools().iter().find(|pool| pool.app().id == app).cloned()
}

fn hubs(shared: &Shared, kinds: &Census) -> Vec<HubView> {
    let view = |hub: &std::sync::Arc<Hub>| {
        let of_hub = || kinds.iter().filter(|(kind, _)| kind.hub == hub.index());
        let by = |label: fn(&Kind) -> &'static str| {
            let mut counts = BTreeMap::<_, u64>::new();
            of_hub().for_each(|(kind, clients)| *counts.entry(label(kind)).or_default() += clients);
            counts.into_iter().map(|(label, clients)| (label.to_owned(), clients)).collect()
        };
        HubView {
            name: hub.name().into(),
            path: hub.settings().path.clone(),
            clients: of_hub().map(|(_, clients)| clients).sum(),
            homeless: of_hub().filter(|(kind, _)| kind.app == AppServerId::NONE).map(|(_, clients)| clients).sum(),
            transports: by(|kind| kind.transport),
            protocols: by(|kind| kind.protocol),
        }
    };
    shared.hubs.all().iter().take(HUBS_MAX).map(view).collect()
}

fn links(shared: &Shared, kinds: &Census) -> Vec<LinkView> {
    let mut at_home = HashMap::<(HubIndex, AppServerId), u64>::new();
    kinds.iter().for_each(|(kind, clients)| *at_home.entry((kind.hub, kind.app)).or_default() += clients);
    let mut views = Vec::new();
    for hub in shared.hubs.all().iter() {
        for pool in hub.pools().iter() {
            let app = pool.app();
            let (open, resuming) = (pool.open(), pool.resuming());
            views.push(LinkView {
                hub: hub.name().into(),
                app: app.instance.clone(),
                app_name: app.name.clone(),
                address: app.target.to_string(),
                is_leaving: pool.is_draining(),
                open: open as u64,
                resuming: resuming as u64,
                down: pool.size().saturating_sub(open + resuming) as u64,
                clients: at_home.get(&(hub.index(), app.id)).copied().unwrap_or_default(),
            });
        }
    }
    views.truncate(LINKS_MAX);
    views
}

/// What was counted since the node started, in the form of rates.
#[expect(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
fn totals(shared: &Shared) -> Rates {
    let sum = |of: &dyn Fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum::<u64>() as f64;
    let hubs = |of: fn(&HubCounters) -> u64| sum(&|counters| counters.hubs().map(of).sum());
    let bytes = |direction| sum(&|counters| counters.traffic(direction, FrameKind::Message).bytes.get());
    Rates {
        messages_up: hubs(|hub| hub.messages_up.get()),
        deliveries: hubs(|hub| hub.deliveries.get()),
        bytes_up: bytes(Direction::Up),
        bytes_down: bytes(Direction::Down),
        opened: hubs(HubCounters::opened),
        closed: hubs(|hub| hub.closed.total()),
    }
}

fn rates(now: &Rates, before: &Rates, seconds: f64) -> Rates {
    let per_second =
        |of: fn(&Rates) -> f64| ((of(now) - of(before)).max(0.0) / seconds.max(0.001) * 10.0).round() / 10.0;
    Rates {
        messages_up: per_second(|rates| rates.messages_up),
        deliveries: per_second(|rates| rates.deliveries),
        bytes_up: per_second(|rates| rates.bytes_up),
        bytes_down: per_second(|rates| rates.bytes_down),
        opened: per_second(|rates| rates.opened),
        closed: per_second(|rates| rates.closed),
    }
}
