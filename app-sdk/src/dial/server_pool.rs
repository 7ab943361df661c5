//! Server connections of one hub to one service: dialling, keeping and graceful shutdown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_link::{LinkOutbox, StatefulReconnects};
use trunkline_protocol::dial_in::{FIN_MIGRATE, SHUTDOWN_PING, STATUS_PING};
use trunkline_protocol::service::{Backoff, Capabilities, Ping};

use super::dial_error::DialError;
use super::dialled_service::DialledService;
use super::pool_pings::{PoolPings, PoolRequests};
use super::upgrade::Wanted;
use crate::brief_debug::brief_debug;
use crate::link::{Link, LinkSocket, Service, SessionTerms, SlotKey, Slots};
use crate::outbound::Endpoint;
use crate::sync::lock;

/// Maximum number of additional connections that a service may request. A fleet has a few hundred nodes at most.
const ON_DEMAND_MAX: usize = 256;

/// Maximum number of concurrent on-demand dials. A service repeats its request.
const ON_DEMAND_DIALS_MAX: usize = 16;

const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// A server connection that ends sooner counts as a failure, to prevent a tight dial loop.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Maximum delay before a lost connection is dialled again. It is random, because connections are often lost together.
const SPREAD_MS: u64 = 1_000;

/// Minimum and maximum wait between dials of an unreachable service. Half of each wait is random.
const BACKOFF_MS: (u64, u64) = (2_000, 60_000);

/// Interval and number of the pings that announce the shutdown.
const FIN_INTERVAL: Duration = Duration::from_secs(5);
const FIN_TRIES: u32 = 24;

pub(crate) struct PoolParts {
    pub(crate) service: Arc<DialledService>,
    /// Name of the hub. The service uses it in lower case.
    pub(crate) hub: Arc<str>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) ring_max_bytes: usize,
    /// Interval of pings to clients. A service forwards pings but sends none itself.
    pub(crate) keep_alive_interval: Duration,
    /// Whether the service offers stateful reconnect to clients of the hub.
    pub(crate) reconnects: StatefulReconnects,
    pub(crate) tasks: TaskTracker,
    pub(crate) draining: CancellationToken,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) struct ServerPool {
    pub(crate) parts: PoolParts,
    pub(crate) service_hub: String,
    state: Mutex<PoolState>,
    /// Held by the slot that retries while the service is unreachable.
    probe: tokio::sync::Mutex<Backoff>,
}

#[derive(Debug, Default)]
struct PoolState {
    live: BTreeMap<u32, LiveConnection>,
    is_down: bool,
    /// Number of on-demand connections, including those being dialled.
    on_demand: usize,
    on_demand_dials: usize,
    next_slot: u32,
}

#[derive(Debug)]
struct LiveConnection {
    outbox: Arc<LinkOutbox>,
    is_finished: bool,
}

impl ServerPool {
    pub(crate) fn start(parts: PoolParts, connections: u32) -> Arc<Self> {
        let service_hub = parts.hub.to_lowercase();
        let state = Mutex::new(PoolState { next_slot: connections, ..PoolState::default() });
        let backoff = Backoff::new(BACKOFF_MS.0, BACKOFF_MS.1);
        let pool = Arc::new(Self { parts, service_hub, state, probe: tokio::sync::Mutex::new(backoff) });
        for slot in 0..connections {
            pool.spawn(Arc::clone(&pool).keep(slot));
        }
        pool.spawn(Arc::clone(&pool).ask_status());
        pool.spawn(Arc::clone(&pool).ping_clients());
        pool
    }

    /// Whether the service has a server connection that carries clients.
    pub(crate) fn is_online(&self) -> bool {
        !lock(&self.state).live.is_empty()
    }

    /// Announces the shutdown to the service until it has acknowledged on every server connection.
    pub(crate) async fn leave(self: Arc<Self>) {
        for _ in 0..FIN_TRIES {
            let waiting: Vec<_> = {
                let state = lock(&self.state);
                state.live.values().filter(|live| !live.is_finished).map(|live| Arc::clone(&live.outbox)).collect()
            };
            if waiting.is_empty() {
                return;
            }
            let fin = ping(SHUTDOWN_PING, FIN_MIGRATE);
            waiting.iter().for_each(|outbox| outbox.echo(&fin));
            if timeout(FIN_INTERVAL, self.parts.shutdown.cancelled()).await.is_ok() {
                return;
            }
        }
        tracing::warn!(service = %self.parts.service.name, hub = %self.parts.hub, "the service did not acknowledge the shutdown");
    }

    /// Keeps a slot connected until shutdown.
    async fn keep(self: Arc<Self>, slot: u32) {
        while let Some(socket) = self.connect().await {
            let begun = Instant::now();
            self.run(slot, socket).await;
            if begun.elapsed() < SETTLED_AFTER {
                lock(&self.state).is_down = true;
            } else {
                sleep(Backoff::new(SPREAD_MS, SPREAD_MS).next_wait()).await;
            }
        }
    }

    /// Dials until the service is reached; `None` on shutdown.
    async fn connect(&self) -> Option<LinkSocket> {
        loop {
            if !lock(&self.state).is_down {
                match self.dial(Wanted::Default).await? {
                    Ok(socket) => return Some(self.reached(socket)),
                    Err(problem) => self.failed(&problem),
                }
                continue;
            }
            let draining = &self.parts.draining;
            let mut backoff = draining.run_until_cancelled(self.probe.lock()).await?;
            if !lock(&self.state).is_down {
                continue;
            }
            draining.run_until_cancelled(sleep(backoff.next_wait())).await?;
            match self.dial(Wanted::Default).await? {
                Ok(socket) => {
                    backoff.reset();
                    return Some(self.reached(socket));
                }
                Err(problem) => self.failed(&problem),
            }
        }
    }

    /// Dials once; `None` on shutdown.
    async fn dial(&self, wanted: Wanted<'_>) -> Option<Result<LinkSocket, DialError>> {
        let dialling = self.parts.service.dial(&self.service_hub, wanted, self.parts.reconnects);
        self.parts.draining.run_until_cancelled(dialling).await
    }

    fn reached(&self, socket: LinkSocket) -> LinkSocket {
        lock(&self.state).is_down = false;
        self.parts.service.note_reached(&self.parts.hub);
        socket
    }

    fn failed(&self, problem: &DialError) {
        lock(&self.state).is_down = true;
        self.parts.service.note_problem(&self.parts.hub, problem);
    }

    async fn run(self: &Arc<Self>, slot: u32, socket: LinkSocket) {
        let PoolParts { service, hub, endpoint, slots, ring_max_bytes, tasks, shutdown, .. } = &self.parts;
        let node = format!("{}#{slot}", service.name).into();
        let pool: Arc<dyn PoolRequests> = Arc::<Self>::clone(self);
        let pings = Arc::new(PoolPings::new(Arc::downgrade(&pool), Arc::clone(endpoint), slot));
        let terms = SessionTerms {
            endpoint: Arc::clone(endpoint),
            key: SlotKey { hub: Arc::clone(hub), node, boot: "".into(), slot },
            service: Some(Service { name: Arc::clone(&service.name), pings }),
            ring_max_bytes: *ring_max_bytes,
            // Both proxies and Azure support member queries.
            capabilities: Capabilities { lists_members: true, ..Capabilities::default() },
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
        };
        let link = Link { terms, slots: Arc::clone(slots) };
        // A slot has one socket at a time, so this is never refused.
        let Ok((attached, _)) = link.attach(None).await else { return };
        let live = LiveConnection { outbox: Arc::clone(&attached.session.outbox), is_finished: false };
        lock(&self.state).live.insert(slot, live);
        attached.run_shaken(socket).await;
        lock(&self.state).live.remove(&slot);
    }

    async fn ask_status(self: Arc<Self>) {
        let mut ticks = ticks(STATUS_INTERVAL);
        while self.parts.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let any = lock(&self.state).live.values().next().map(|live| Arc::clone(&live.outbox));
            if let Some(outbox) = any {
                outbox.echo(&ping(STATUS_PING, "1"));
            }
        }
    }

    /// Keeps clients from timing out the app server.
    async fn ping_clients(self: Arc<Self>) {
        let mut ticks = ticks(self.parts.keep_alive_interval);
        while self.parts.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.parts.endpoint.ping_clients(&self.parts.service.name);
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.parts.tasks.spawn(task);
    }
}

impl PoolRequests for ServerPool {
    fn set_finished(&self, slot: u32) {
        if let Some(live) = lock(&self.state).live.get_mut(&slot) {
            live.is_finished = true;
        }
    }

    fn open_on_demand(self: Arc<Self>, instance: &str) {
        let slot = {
            let mut state = lock(&self.state);
            if state.on_demand >= ON_DEMAND_MAX || state.on_demand_dials >= ON_DEMAND_DIALS_MAX {
                tracing::debug!(hub = %self.parts.hub, instance, "the service requests more connections than allowed");
                return;
            }
            state.on_demand += 1;
            state.on_demand_dials += 1;
            state.next_slot = state.next_slot.wrapping_add(1);
            state.next_slot.wrapping_sub(1)
        };
        let (pool, instance) = (Arc::clone(&self), instance.to_owned());
        self.spawn(async move {
            let dialled = pool.dial(Wanted::OnDemand(&instance)).await;
            lock(&pool.state).on_demand_dials -= 1;
            match dialled {
                Some(Ok(socket)) => pool.run(slot, socket).await,
                // The service repeats its request, and a load balancer may choose the right instance then.
                Some(Err(problem)) => {
                    tracing::debug!(hub = %pool.parts.hub, %instance, %problem, "a connection on demand was not opened");
                }
                None => {}
            }
            lock(&pool.state).on_demand -= 1;
        });
    }
}

brief_debug!(ServerPool, |it| { hub: it.parts.hub });

/// Interval timer. The first tick comes after one interval.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn ping(key: &'static str, value: &'static str) -> Ping {
    Ping { pairs: vec![(key.into(), value.into())] }
}
