//! State that all shards of a node share: settings, keys, hubs, routes, and each other's inboxes.

mod admission;
pub(super) mod client_result;
pub(super) mod history;
pub(super) mod left_membership;
pub(super) mod other_nodes;
pub(super) mod own_interest;
pub(super) mod route_table;
pub(super) mod user_group;
pub(super) mod webhook_pool;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytestring::ByteString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trunkline_channel::HelloTable;
use trunkline_link::MoveQueue;
use trunkline_protocol::fleet::ToldMembership;
use trunkline_protocol::id::random_id;
use trunkline_protocol::key::FarEnd;
use trunkline_protocol::service::ServiceMessage;
use trunkline_protocol::token::ConnectionToken;

use super::assignments::answer_diff::SeenDifferences;
use super::command::ShardCommand;
use super::inbox::ShardSender;
use crate::config::Settings;
use crate::limits::LimitCounters;
use crate::metrics::{Counters, RestCounters};
use crate::net::connector::Connector;
use crate::net::dial_gate::DialGate;
use crate::net::node_name::NodeNames;
use crate::net::resolver::Resolver;
use crate::routing::DEFAULT_GROUP;
use crate::telemetry::SpanTracer;
use crate::upstream::{AppServerId, GroupTerms, Hub, HubIndex, HubRegistry};
use crate::webhook::Webhooks;
use admission::Admission;
use client_result::ClientResults;
use history::{History, PastConnection};
use other_nodes::{NoOtherNodes, OtherNodes};
use own_interest::OwnInterest;
use route_table::RouteTable;
use user_group::{MembershipNews, MembershipRefused, UserGroupLimits, UserGroups};

/// Origin of the sockets of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// Accepted by the shard itself.
    Own,
    /// Accepted by another runtime: they have to be moved to the shard's.
    Adopted,
}

/// Connectors of a node. They differ in the certificates that they trust and present.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connectors {
    /// To app servers and other nodes.
    pub fleet: Connector,
    /// To the publishers of keys of access tokens.
    pub issuers: Connector,
    /// Resolver of the names of other nodes.
    pub resolver: Resolver,
}

/// Move of a connection of dial-in, which a node has announced.
#[derive(Debug)]
pub(crate) struct AnnouncedMove {
    /// Boot id of the node that has it still.
    pub owner: ByteString,
    /// Name of its hub in the fleet.
    pub hub: ByteString,
    pub connection_id: ByteString,
}

/// Ways from a node to app servers and other nodes.
#[derive(Debug)]
pub(crate) struct WaysOut {
    /// Connector to app servers and other nodes, for what is no secret of the fleet.
    pub connector: Connector,
    /// Connector to app servers that prove themselves: for manifests, links and decisions about clients.
    pub app_channels: Connector,
    /// Connector to the admin ports of nodes that prove themselves.
    pub node_channels: Connector,
    /// Connector to the client ports of nodes that prove themselves: for requests whose connections are theirs.
    pub client_port_channels: Connector,
    /// Names of other nodes, and where these were reached.
    pub node_names: Arc<NodeNames>,
    /// Gate of the dials to other nodes.
    pub node_dials: Arc<DialGate>,
}

/// State of a node that its fleet has to do with.
#[derive(Debug)]
pub(crate) struct FleetSide {
    /// Interest of this node in what other nodes pass on; `None` if it knows none.
    pub interest: Option<Arc<OwnInterest>>,
    /// Number of this node as the origin of sends that enter the fleet here.
    pub origin: AppServerId,
    /// Hellos that the client port has taken: of channels that other nodes open there.
    pub client_port_hellos: HelloTable,
    /// Moves of connections that wait for the sends that have entered the fleet here.
    pub moves: MoveQueue<AnnouncedMove>,
    other_nodes: OnceLock<Arc<dyn OtherNodes>>,
}

/// Reports of a node to its operator that no shard and no link has.
#[derive(Debug, Default)]
pub(crate) struct NodeReports {
    /// Reason why the rules of the file are not in force.
    pub rules_problem: ArcSwapOption<String>,
    /// Newest differences between mirrors and primary app servers.
    pub differences: SeenDifferences,
    /// Counters of the REST data plane.
    pub rest_counters: RestCounters,
}

/// Shards of a node as others see them, by index.
#[derive(Debug)]
struct ShardSet {
    senders: Vec<ShardSender>,
    counters: Vec<Arc<Counters>>,
    history: Vec<History>,
}

/// Life of a node, from its start to its drain.
#[derive(Debug)]
struct NodeLife {
    whose_sockets: Sockets,
    sockets: AtomicU64,
    has_begun_drain: AtomicBool,
    /// Whether shards send to many sockets by one system call.
    has_vectored_sends: AtomicBool,
    /// Cancelled when the drain begins.
    drain_begun: CancellationToken,
    /// Cancelled when new clients are refused.
    clients_refused: CancellationToken,
    started: Instant,
}

/// State that all shards of a node share, a struct for each feature.
#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: Settings,
    /// Random id of this start of the node.
    pub boot: String,
    /// Hubs and the links to their app servers.
    pub hubs: HubRegistry,
    pub routes: Arc<RouteTable>,
    pub admission: Admission,
    pub ways: WaysOut,
    pub fleet: FleetSide,
    /// Webhooks of hubs without app servers.
    pub webhooks: Webhooks,
    /// Client results that app servers that dial in wait for.
    pub client_results: ClientResults,
    /// Memberships of users that hold for connections to come.
    pub user_groups: UserGroups,
    pub reports: NodeReports,
    /// Tracer of calls and connections; `None` if nothing is traced.
    pub tracer: Option<SpanTracer>,
    /// Counters behind the limits.
    pub limits: LimitCounters,
    shards: ShardSet,
    life: NodeLife,
}

impl Shared {
    /// Shared state of a node with these shards.
    #[must_use]
    pub(crate) fn new(settings: Settings, connectors: Connectors, shards: Vec<ShardSender>) -> Arc<Self> {
        Arc::new(Self::with(settings, connectors, shards, Sockets::Own))
    }

    /// Shared state of a node inside an app, whose sockets come from the app's runtime.
    #[must_use]
    pub(crate) fn embedded(settings: Settings, shard: ShardSender) -> Arc<Self> {
        Arc::new(Self::with(settings, Connectors::default(), vec![shard], Sockets::Adopted))
    }

    /// Returns the id of the connection of a hub that a connection token is for.
    #[must_use]
    pub(crate) fn connection_of_token(&self, hub: &Hub, token: &str) -> Option<ByteString> {
        let opened = ConnectionToken::open(token, &self.settings.keys).ok()?;
        let is_own = opened.hub.eq_ignore_ascii_case(&hub.settings().path);
        opened.connection_id.filter(|_| is_own).map(ByteString::from)
    }

    fn with(settings: Settings, connectors: Connectors, shards: Vec<ShardSender>, whose_sockets: Sockets) -> Self {
        let (boot, hubs) = (random_id(), HubRegistry::default());
        let app_channels = connectors.fleet.through_channels(&settings.keys, FarEnd::AppServer);
        let terms = GroupTerms {
            pool_size: settings.pool_size,
            pool_turn: settings.pool_turn,
            channels: app_channels.clone(),
            plain: connectors.fleet.clone(),
            weights: HashMap::new(),
        };
        hubs.groups().set(&DEFAULT_GROUP.into(), terms.clone(), false);
        for rule in &settings.rules.groups {
            hubs.groups().set(&rule.name, terms.clone(), settings.rules.is_mirror(&rule.name));
        }
        hubs.apply_rules(&settings.rules);
        let admission = Admission::new(&settings, connectors.issuers);
        let user_groups = UserGroupLimits {
            count: settings.rest.user_groups_max,
            total_bytes: settings.rest.user_groups_max_bytes,
            name_max_bytes: settings.groups.name_max_bytes,
        };
        Self {
            user_groups: UserGroups::new(user_groups, admission.signing_keys.clone()),
            admission,
            fleet: FleetSide::new(&settings, hubs.number(&boot)),
            webhooks: Webhooks::new(&settings.webhooks, &settings.keys, connectors.fleet.clone()),
            ways: WaysOut {
                app_channels,
                node_channels: connectors.fleet.through_channels(&settings.keys, FarEnd::NodeAdmin),
                client_port_channels: connectors.fleet.through_channels(&settings.keys, FarEnd::NodeClients),
                connector: connectors.fleet,
                node_names: Arc::new(NodeNames::new(connectors.resolver)),
                node_dials: Arc::default(),
            },
            client_results: ClientResults::default(),
            reports: NodeReports::default(),
            tracer: settings.sampling.map(SpanTracer::new),
            limits: LimitCounters::new(&settings.limits, &settings.relay),
            shards: ShardSet::new(shards),
            life: NodeLife::new(whose_sockets),
            routes: Arc::default(),
            boot,
            hubs,
            settings,
        }
    }

    /// Notes that shards send to many sockets by one system call: the system lets the node make a ring.
    pub(crate) fn note_vectored_sends(&self) {
        self.life.has_vectored_sends.store(true, Ordering::Relaxed);
    }

    /// Whether shards send to many sockets by one system call.
    #[must_use]
    pub(crate) fn has_vectored_sends(&self) -> bool {
        self.life.has_vectored_sends.load(Ordering::Relaxed)
    }

    /// Origin of the sockets of clients.
    #[must_use]
    pub(crate) fn whose_sockets(&self) -> Sockets {
        self.life.whose_sockets
    }

    /// Whether all hubs that have to be served are.
    #[must_use]
    pub(crate) fn hubs_are_served(&self) -> bool {
        // Without upstreams app servers dial in, and load balancers lead them to nodes that are ready.
        self.hubs.are_served(self.settings.has_upstreams)
    }

    /// Terms of a group of app servers that differs from the default one in nothing.
    #[must_use]
    pub(crate) fn default_terms(&self) -> GroupTerms {
        GroupTerms {
            pool_size: self.settings.pool_size,
            pool_turn: self.settings.pool_turn,
            channels: self.ways.app_channels.clone(),
            plain: self.ways.connector.clone(),
            weights: HashMap::new(),
        }
    }

    /// Way to the other nodes of the fleet.
    #[must_use]
    pub(crate) fn other_nodes(&self) -> &dyn OtherNodes {
        self.fleet.other_nodes.get().map_or(&NoOtherNodes, |nodes| &**nodes)
    }

    /// Sets the way to the other nodes, once.
    pub(crate) fn join_fleet(&self, nodes: Arc<dyn OtherNodes>) {
        drop(self.fleet.other_nodes.set(nodes));
    }

    /// Inbox of each shard, by index.
    #[must_use]
    pub(crate) fn shards(&self) -> &[ShardSender] {
        &self.shards.senders
    }

    /// Counters of each shard, by index.
    #[must_use]
    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.shards.counters
    }

    /// Counters of one shard.
    #[must_use]
    pub(crate) fn counters_of(&self, shard: u16) -> Arc<Counters> {
        self.shards.counters.get(usize::from(shard)).cloned().unwrap_or_default()
    }

    /// Remembers a connection that a shard has closed or refused.
    pub(crate) fn remember(&self, shard: u16, past: &PastConnection<'_>) {
        if let Some(ring) = self.shards.history.get(usize::from(shard)).or(self.shards.history.first()) {
            ring.remember(past);
        }
    }

    /// Forgets connections of a shard that were closed too long ago.
    pub(crate) fn forget_old_closes(&self, shard: u16) {
        if let Some(ring) = self.shards.history.get(usize::from(shard)) {
            ring.forget_old();
        }
    }

    /// Record of a connection that was closed in the last minutes.
    #[must_use]
    pub(crate) fn past(&self, id: &str) -> Option<PastConnection<'static>> {
        self.shards.history.iter().filter_map(|ring| ring.find(id)).max_by_key(|past| past.closed_ms)
    }

    /// Number of client connections that have no socket, and wait for their clients.
    #[must_use]
    pub(crate) fn clients_away(&self) -> u64 {
        self.shards.counters.iter().map(|counters| counters.away.get()).sum()
    }

    /// Number of sockets that are client connections, or are about to be, or were.
    #[must_use]
    pub(crate) fn sockets(&self) -> u64 {
        self.life.sockets.load(Ordering::Relaxed)
    }

    /// Counts a socket that begins to be served.
    pub(crate) fn socket_began(&self) {
        self.life.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a socket that has ended.
    pub(crate) fn socket_ended(&self) {
        self.life.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// Time since the node started.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.life.started.elapsed()
    }

    /// Milliseconds since the node started: the clock of link sessions.
    #[must_use]
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.life.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Instant of a time on that clock.
    #[must_use]
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.life.started + Duration::from_millis(at_ms)
    }

    /// Whether the node is about to stop: it is not ready any more.
    #[must_use]
    pub(crate) fn has_begun_drain(&self) -> bool {
        self.life.has_begun_drain.load(Ordering::Relaxed)
    }

    /// Begins the drain of a node that is about to stop: load balancers turn away from it.
    pub(crate) fn begin_drain(&self) {
        self.life.has_begun_drain.store(true, Ordering::Relaxed);
        self.life.drain_begun.cancel();
    }

    /// Waits until the drain begins.
    #[cfg(feature = "tls")]
    pub(crate) async fn drain_begun(&self) {
        self.life.drain_begun.cancelled().await;
    }

    /// Whether the node stops and refuses new clients.
    #[must_use]
    pub(crate) fn refuses_clients(&self) -> bool {
        self.life.clients_refused.is_cancelled()
    }

    /// Waits until new clients are refused.
    pub(crate) async fn clients_refused(&self) {
        self.life.clients_refused.cancelled().await;
    }

    /// Refuses new clients from now on.
    pub(crate) fn refuse_clients(&self) {
        self.begin_drain();
        self.life.clients_refused.cancel();
        for hub in self.hubs.all().iter() {
            hub.identity().wake_waiters();
        }
    }

    /// Groups that a new connection of a user joins at once.
    #[must_use]
    pub(crate) fn kept_groups_of(&self, hub: HubIndex, user: &str) -> Vec<ByteString> {
        self.hubs.at(hub).map(|hub| self.user_groups.of(hub.key(), user)).unwrap_or_default()
    }

    /// Keeps or ends what a message says of a user's memberships in a hub, by its name in the fleet.
    ///
    /// # Errors
    /// When too many are kept.
    pub(crate) fn note_user_groups(&self, hub: &str, message: &ServiceMessage) -> Result<(), MembershipRefused> {
        self.count_refused(hub, self.user_groups.note(hub, message))
    }

    /// Learns a user's membership from another node.
    pub(crate) fn learn_user_group(&self, told: &ToldMembership) -> MembershipNews {
        self.count_refused(&told.hub, self.user_groups.learn(told)).unwrap_or(MembershipNews::Nothing)
    }

    fn count_refused<T>(&self, hub: &str, kept: Result<T, MembershipRefused>) -> Result<T, MembershipRefused> {
        kept.inspect_err(|problem| {
            self.user_groups.refused.increment();
            if self.limits.may_log(self.uptime()) {
                warn!(hub, %problem, "a user's membership is not kept for connections to come");
            }
        })
    }

    /// Has the connections of users leave the groups in which their time is over.
    pub(crate) fn expire_user_groups(&self) {
        for over in self.user_groups.take_expired() {
            let Some(hub) = self.hubs.keyed(&over.hub).map(|hub| hub.index()) else { continue };
            for shard in &self.shards.senders {
                let over = over.clone();
                shard.order(ShardCommand::Expire { hub, over });
            }
        }
    }

    /// Waits until a hub is served by a group again, if a link of that was lost a moment ago and clients are still
    /// taken.
    pub(crate) async fn wait_for_link(&self, hub: &Hub, group: &str) {
        let window = Duration::from_millis(self.settings.links.resume_window_ms);
        let limit = self.settings.rehoming.link_wait(hub.settings().handshake_timeout_ms);
        hub.wait_until_served(group, window, limit, || self.refuses_clients()).await;
    }

    /// Waits until one app server of a hub can be reached, for as long as a client may wait for any.
    pub(crate) async fn wait_for_app(&self, hub: &Hub, app: AppServerId) {
        let limit = self.settings.rehoming.link_wait(hub.settings().handshake_timeout_ms);
        hub.wait_until_reached(app, limit, || self.refuses_clients()).await;
    }
}

impl FleetSide {
    fn new(settings: &Settings, origin: AppServerId) -> Self {
        let interest = settings.fleet.has_peers().then(Arc::default);
        let client_port_hellos = HelloTable::default();
        Self { interest, origin, client_port_hellos, moves: MoveQueue::default(), other_nodes: OnceLock::new() }
    }
}

impl ShardSet {
    fn new(senders: Vec<ShardSender>) -> Self {
        let history = senders.iter().map(|_| History::new(senders.len())).collect();
        Self { counters: senders.iter().map(|_| Arc::default()).collect(), history, senders }
    }
}

impl NodeLife {
    fn new(whose_sockets: Sockets) -> Self {
        Self {
            whose_sockets,
            sockets: AtomicU64::new(0),
            has_begun_drain: AtomicBool::new(false),
            has_vectored_sends: AtomicBool::new(false),
            drain_begun: CancellationToken::new(),
            clients_refused: CancellationToken::new(),
            started: Instant::now(),
        }
    }
}
