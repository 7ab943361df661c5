//! State shared by all shards of a node: settings, hubs, routes and the shards' inboxes.

pub(super) mod client_result;
pub(super) mod history;
pub(super) mod other_nodes;
pub(super) mod route_table;
pub(super) mod seams;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trunkline_channel::HelloTable;
use trunkline_link::MoveQueue;
use trunkline_protocol::id::random_id;
use trunkline_protocol::key::PeerKind;
use trunkline_protocol::service::ServiceMessage;
use trunkline_protocol::token::ConnectionToken;

use super::command::ShardCommand;
use super::inbox::{ShardMessage, ShardSender};
use crate::engine::transport::http_transport::{CarriedGets, HttpTransports};
use crate::engine::upstream::{AppServerId, GroupTerms, Hub, HubIdentity, HubIndex, HubRegistry, Pool, ReplyTo};
use crate::ground::auth::Signer;
use crate::ground::bounded::{TurnLine, TurnSource, Turns};
use crate::ground::condition::{ClockSightings, ConditionRegistry, KnownHubs, RefusalReasons};
use crate::ground::config::Settings;
use crate::ground::limits::{AppHolder, AppRate, LimitCounters, SignerShare};
use crate::ground::metrics::{Counter, Counters, RestCounters};
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::net::node_name::NodeNames;
use crate::ground::net::node_port::NodePort;
use crate::ground::net::resolver::Resolver;
use crate::ground::routing::DEFAULT_GROUP;
use crate::ground::telemetry::SpanTracer;
use client_result::ClientResults;
use history::{History, PastConnection};
use other_nodes::{NoOtherNodes, OtherNodes};
use route_table::RouteTable;
use seams::{AccessRules, KeptMemberships, MembershipRefused, Recorder, Seams, SetInterest};
#[cfg(test)]
use seams::{NoMemberships, OpenAccess};

/// Origin of client sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// Accepted by the shard itself.
    Own,
    /// Accepted by another runtime, so they have to be moved to the shard's runtime.
    Adopted,
}

/// Connectors of a node. They differ in the certificates that they trust and present.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connectors {
    /// For app servers and other nodes.
    pub fleet: Connector,
    /// Resolver for the names of other nodes.
    pub resolver: Resolver,
}

#[derive(Debug)]
pub(crate) struct AnnouncedMove {
    /// Boot id of the node that still has the connection.
    pub owner: ByteString,
    /// Fleet-wide name of the hub.
    pub hub: ByteString,
    pub connection_id: ByteString,
}

#[derive(Debug)]
pub(crate) struct WaysOut {
    /// Connector to app servers and other nodes for data that is not secret.
    pub connector: Connector,
    /// Connector to authenticated app servers: for manifests, links and decisions about clients.
    pub app_channels: Connector,
    /// Connector to the admin ports of authenticated nodes.
    pub node_channels: Connector,
    /// Connector to the client ports of authenticated nodes, for requests of their connections.
    pub client_port_channels: Connector,
    pub node_names: Arc<NodeNames>,
}

#[derive(Debug)]
pub(crate) struct FleetSide {
    /// Number of this node as the origin of sends that enter the fleet here.
    pub origin: AppServerId,
    /// Hellos received at the client port, for channels opened by other nodes.
    pub client_port_hellos: HelloTable,
    /// Moves of connections that wait for sends that entered the fleet here.
    pub moves: MoveQueue<AnnouncedMove>,
    other_nodes: OnceLock<Arc<dyn OtherNodes>>,
    recorder: OnceLock<Arc<dyn Recorder>>,
}

/// Operator reports that belong to no shard and no link.
#[derive(Debug, Default)]
pub(crate) struct NodeReports {
    pub memberships_refused: Counter,
    pub rest_counters: RestCounters,
    pub conditions: ConditionRegistry,
    pub known_hubs: KnownHubs,
    pub refusals: RefusalReasons,
    pub clocks: ClockSightings,
    /// Ends of the presented certificates in seconds since 1970, by file and role.
    pub certificate_ends: ArcSwap<BTreeMap<(String, &'static str), u64>>,
}

/// Senders, counters and histories of a node's shards, by index.
#[derive(Debug)]
struct ShardSet {
    senders: Vec<ShardSender>,
    counters: Vec<Arc<Counters>>,
    history: Vec<History>,
}

#[derive(Debug)]
struct NodeLife {
    whose_sockets: Sockets,
    sockets: AtomicU64,
    has_begun_drain: AtomicBool,
    /// Whether shards use vectored sends, one system call for many sockets.
    has_vectored_sends: AtomicBool,
    drain_begun: CancellationToken,
    clients_refused: CancellationToken,
    listening_ended: CancellationToken,
    have_requests_ended: AtomicBool,
    started: Instant,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: Settings,
    /// Random id of this process start.
    pub boot: String,
    pub hubs: HubRegistry,
    pub routes: Arc<RouteTable>,
    pub turns: Turns,
    /// Owners of hubs, and revocations.
    pub access: Arc<dyn AccessRules>,
    pub http_transports: HttpTransports,
    pub carried_gets: CarriedGets,
    pub ways: WaysOut,
    pub fleet: FleetSide,
    pub client_results: ClientResults,
    /// Memberships of users for later connections.
    pub user_groups: Arc<dyn KeptMemberships>,
    /// Interest of this node in messages of other nodes; `None` for a node without peers.
    pub interest: Option<Arc<dyn SetInterest>>,
    pub reports: NodeReports,
    /// Tracer of calls and connections; `None` if tracing is off.
    pub tracer: Option<SpanTracer>,
    /// Counters of the configured limits.
    pub limits: LimitCounters,
    shards: ShardSet,
    life: NodeLife,
}

impl Shared {
    pub(crate) fn new(settings: Settings, seams: Seams, connectors: Connectors, shards: Vec<ShardSender>) -> Arc<Self> {
        Arc::new(Self::with(settings, seams, (connectors, shards), Sockets::Own))
    }

    /// Creates the shared state of a node without keys of apps, revocations and memberships of users.
    #[cfg(test)]
    pub(crate) fn alone(settings: Settings, shards: Vec<ShardSender>) -> Arc<Self> {
        let seams = Seams { access: Arc::new(OpenAccess), user_groups: Arc::new(NoMemberships), interest: None };
        Self::new(settings, seams, Connectors::default(), shards)
    }

    /// Creates the shared state of an embedded node, which takes its sockets from the app's runtime.
    pub(crate) fn embedded(settings: Settings, seams: Seams, shard: ShardSender) -> Arc<Self> {
        Arc::new(Self::with(settings, seams, (Connectors::default(), vec![shard]), Sockets::Adopted))
    }

    /// Returns the connection id in a connection token, if the token belongs to this hub.
    pub(crate) fn connection_of_token(&self, hub: &Hub, token: &str) -> Option<ByteString> {
        let opened = ConnectionToken::open(token, &self.settings.keys).ok()?;
        let is_own = opened.hub.eq_ignore_ascii_case(&hub.settings().path);
        opened.connection_id.filter(|_| is_own).map(ByteString::from)
    }

    fn with(
        settings: Settings,
        Seams { access, user_groups, interest }: Seams,
        (connectors, shards): (Connectors, Vec<ShardSender>),
        whose_sockets: Sockets,
    ) -> Self {
        let (boot, hubs) = (random_id(), HubRegistry::default());
        let mut settings = settings;
        if settings.fleet.by_nats && settings.fleet.peers.is_empty() {
            settings.advertise = Some(Address::of_node(&boot, NodePort::Clients));
        }
        let app_channels = connectors.fleet.through_channels(&settings.keys, PeerKind::AppServer);
        let terms = GroupTerms {
            pool_size: settings.pool_size,
            pool_turn: settings.pool_turn,
            channels: app_channels.clone(),
            plain: connectors.fleet.clone(),
            weights: HashMap::new(),
        };
        hubs.groups.set(&DEFAULT_GROUP.into(), terms.clone(), false);
        for rule in &settings.rules.groups {
            hubs.groups.set(&rule.name, terms.clone(), settings.rules.is_mirror(&rule.name));
        }
        hubs.apply_rules(&settings.rules);
        Self {
            user_groups,
            interest,
            access,
            http_transports: HttpTransports::default(),
            carried_gets: CarriedGets::default(),
            turns: Turns::new(shards.len()),
            fleet: FleetSide::new(hubs.number(&boot)),
            ways: WaysOut {
                app_channels,
                node_channels: connectors.fleet.through_channels(&settings.keys, PeerKind::NodeAdmin),
                client_port_channels: connectors.fleet.through_channels(&settings.keys, PeerKind::NodeClients),
                connector: connectors.fleet,
                node_names: Arc::new(NodeNames::new(connectors.resolver)),
            },
            client_results: ClientResults::default(),
            reports: NodeReports::default(),
            tracer: settings.sampling.map(SpanTracer::new),
            limits: LimitCounters::new(&settings),
            shards: ShardSet::new(shards),
            life: NodeLife::new(whose_sockets),
            routes: Arc::default(),
            boot,
            hubs,
            settings,
        }
    }

    /// Records that shards use vectored sends, since the kernel permits an io_uring.
    pub(crate) fn note_vectored_sends(&self) {
        self.life.has_vectored_sends.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_vectored_sends(&self) -> bool {
        self.life.has_vectored_sends.load(Ordering::Relaxed)
    }

    pub(crate) fn whose_sockets(&self) -> Sockets {
        self.life.whose_sockets
    }

    /// Whether all hubs that require app servers are served.
    pub(crate) fn hubs_are_served(&self) -> bool {
        // Without upstreams app servers dial in, and load balancers send them to ready nodes only.
        self.hubs.are_served(self.settings.has_upstreams)
    }

    pub(crate) fn default_terms(&self) -> GroupTerms {
        GroupTerms {
            pool_size: self.settings.pool_size,
            pool_turn: self.settings.pool_turn,
            channels: self.ways.app_channels.clone(),
            plain: self.ways.connector.clone(),
            weights: HashMap::new(),
        }
    }

    pub(crate) fn other_nodes(&self) -> &dyn OtherNodes {
        self.fleet.other_nodes.get().map_or(&NoOtherNodes, |nodes| &**nodes)
    }

    /// Sets the access to the other nodes, once.
    pub(crate) fn join_fleet(&self, nodes: Arc<dyn OtherNodes>) {
        drop(self.fleet.other_nodes.set(nodes));
    }

    /// Records of the fleet; `None` while the node starts.
    pub(crate) fn recorder(&self) -> Option<&Arc<dyn Recorder>> {
        self.fleet.recorder.get()
    }

    /// Sets the access to the records, once.
    pub(crate) fn record_by(&self, recorder: Arc<dyn Recorder>) {
        drop(self.fleet.recorder.set(recorder));
    }

    #[must_use]
    pub(crate) fn share_of(&self, signer: &Signer) -> SignerShare {
        SignerShare::new(signer.clone(), self.access.has_apps())
    }

    /// Permit share of the app that owns a hub, given the hub's name.
    #[must_use]
    pub(crate) fn share_of_hub(&self, hub: &str) -> SignerShare {
        self.share_of(&self.access.owner_of(hub))
    }

    /// Permit share of the caller that invokes a client of this hub. Calls relayed by other nodes, or without a token,
    /// count for the app that owns the hub.
    #[must_use]
    pub(crate) fn share_of_asker(&self, reply_to: &dyn ReplyTo, hub: &str) -> SignerShare {
        let signer = reply_to.signer().cloned().unwrap_or_else(|| self.access.owner_of(hub));
        self.share_of(&signer)
    }

    /// App that work counts for: of the signer, or of the hub's owner if all apps may use the signer's key. A hub
    /// without an owner is an app of its own; unknown hubs are one app.
    fn app_of(&self, signer: &Signer, hub: Option<&HubIdentity>) -> AppHolder {
        let owner = |hub: &HubIdentity| self.access.owner_of(hub.name());
        match (signer, hub.map(owner)) {
            (app @ Signer::App(_), _) => AppHolder::Key(app.clone()),
            (Signer::Fleet, Some(app @ Signer::App(_))) => AppHolder::Key(app),
            (Signer::Fleet, _) => AppHolder::Hub(hub.map_or("", HubIdentity::key).into()),
        }
    }

    #[must_use]
    pub(crate) fn turn_line(&self, signer: &Signer, hub: Option<&HubIdentity>, source: TurnSource) -> Arc<TurnLine> {
        self.turns.line(&self.app_of(signer, hub), source)
    }

    pub(crate) fn app_rate(&self, signer: &Signer, hub: Option<&HubIdentity>) -> Option<Arc<AppRate>> {
        self.limits.app_rates.of(|| self.app_of(signer, hub))
    }

    pub(crate) fn shards(&self) -> &[ShardSender] {
        &self.shards.senders
    }

    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.shards.counters
    }

    pub(crate) fn counters_of(&self, shard: u16) -> Arc<Counters> {
        self.shards.counters.get(usize::from(shard)).cloned().unwrap_or_default()
    }

    /// Assigns the links of a pool to the shards round-robin from `start`.
    pub(crate) fn keep_links(&self, pool: &Arc<Pool>, start: usize) {
        let shards = self.shards().iter().cycle().skip(start % self.shards().len().max(1));
        for (slot, shard) in (0..pool.size()).zip(shards) {
            shard.put(ShardMessage::KeepLink(pool.clone(), slot));
        }
    }

    /// Records a connection that a shard has closed or refused.
    pub(crate) fn remember(&self, shard: u16, past: &PastConnection<'_>) {
        if let Some(ring) = self.shards.history.get(usize::from(shard)).or(self.shards.history.first()) {
            ring.remember(past);
        }
    }

    pub(crate) fn evict_old_closes(&self, shard: u16) {
        if let Some(ring) = self.shards.history.get(usize::from(shard)) {
            ring.evict_old();
        }
    }

    pub(crate) fn past(&self, id: &str) -> Option<PastConnection<'static>> {
        self.shards.history.iter().filter_map(|ring| ring.find(id)).max_by_key(|past| past.closed_ms)
    }

    /// Number of client connections without a socket that wait for their clients.
    pub(crate) fn clients_away(&self) -> u64 {
        self.shards.counters.iter().map(|counters| counters.away.get()).sum()
    }

    /// Number of sockets of current, future and former client connections.
    pub(crate) fn sockets(&self) -> u64 {
        self.life.sockets.load(Ordering::Relaxed)
    }

    pub(crate) fn socket_began(&self) {
        self.life.sockets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn socket_ended(&self) {
        self.life.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.life.started.elapsed()
    }

    /// Milliseconds since the node started, the clock of link sessions.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.life.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Instant of a time in milliseconds since the node started.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.life.started + Duration::from_millis(at_ms)
    }

    /// Whether the node is about to stop, and therefore not ready.
    pub(crate) fn has_begun_drain(&self) -> bool {
        self.life.has_begun_drain.load(Ordering::Relaxed)
    }

    /// Begins the drain before shutdown, so that load balancers stop routing to this node.
    pub(crate) fn begin_drain(&self) {
        self.life.has_begun_drain.store(true, Ordering::Relaxed);
        self.life.drain_begun.cancel();
    }

    #[cfg(feature = "tls")]
    pub(crate) async fn drain_begun(&self) {
        self.life.drain_begun.cancelled().await;
    }

    /// Whether the node is stopping and refuses new clients.
    pub(crate) fn refuses_clients(&self) -> bool {
        self.life.clients_refused.is_cancelled()
    }

    /// Whether the drain is over, and back ends are refused, too. Until then they are served.
    pub(crate) fn have_requests_ended(&self) -> bool {
        self.life.have_requests_ended.load(Ordering::Relaxed)
    }

    /// Refuses back ends from now on, before this node leaves the fleet.
    pub(crate) fn end_requests(&self) {
        self.life.have_requests_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn clients_refused(&self) {
        self.life.clients_refused.cancelled().await;
    }

    /// Closes the listeners, once the clients have left.
    pub(crate) fn end_listening(&self) {
        self.life.listening_ended.cancel();
    }

    pub(crate) async fn listening_ended(&self) {
        self.life.listening_ended.cancelled().await;
    }

    /// Begins the drain and refuses new clients.
    pub(crate) fn refuse_clients(&self) {
        self.begin_drain();
        self.life.clients_refused.cancel();
        for hub in self.hubs.all().iter() {
            hub.identity.wake_waiters();
        }
    }

    /// Groups that a new connection of a user joins immediately.
    pub(crate) fn kept_groups_of(&self, hub: HubIndex, user: &str) -> Vec<ByteString> {
        self.hubs.at(hub).map(|hub| self.user_groups.groups_of(hub.key(), user)).unwrap_or_default()
    }

    /// Owner of a hub, and the remaining bytes for names of groups in the owner's hubs. If other apps have keys, at
    /// most as many bytes as are free, so one app alone gets half.
    pub(crate) fn group_names_left(&self, hub: HubIndex) -> (Signer, usize) {
        let (names, access) = (&self.limits.group_names, &self.access);
        let owner = self.hubs.at(hub).map(|hub| access.owner_of(hub.name())).unwrap_or_default();
        if !access.has_apps() {
            return (owner, names.free());
        }
        let own = self.limits.group_name_sums.of(&owner, self.uptime(), || {
            let mut by_app = HashMap::<Signer, usize>::new();
            for hub in self.hubs.all().iter() {
                let held = names.held(&hub.index().get());
                if held > 0 {
                    *by_app.entry(access.owner_of(hub.name())).or_default() += held;
                }
            }
            by_app
        });
        (owner, names.free().saturating_sub(own))
    }

    /// Stores or removes a user's memberships in a hub, given its fleet-wide name. Fails if too many memberships are
    /// stored.
    pub(crate) fn note_user_groups(&self, hub: &str, message: &ServiceMessage) -> Result<(), MembershipRefused> {
        self.user_groups.note_change(hub, message).inspect_err(|problem| self.count_refused_membership(hub, problem))
    }

    pub(crate) fn count_refused_membership(&self, hub: &str, problem: &MembershipRefused) {
        self.reports.memberships_refused.increment();
        if self.limits.may_log(self.uptime()) {
            warn!(hub, %problem, "group membership of a user can't be stored");
        }
    }

    pub(crate) fn expire_user_groups(&self) {
        for over in self.user_groups.take_expired() {
            let Some(hub) = self.hubs.keyed(&over.hub).map(|hub| hub.index()) else { continue };
            for shard in &self.shards.senders {
                let over = over.clone();
                shard.order(ShardCommand::Expire { hub, over });
            }
        }
    }

    /// Waits until a group serves a hub again, if its link was lost recently and clients are still accepted.
    pub(crate) async fn wait_for_link(&self, hub: &Hub, group: &str) {
        let window = Duration::from_millis(self.settings.links.resume_window_ms);
        let limit = self.settings.rehoming.link_wait(hub.settings().handshake_timeout_ms);
        hub.wait_until_served(group, window, limit, || self.refuses_clients()).await;
    }

    /// Waits until a hub's app server can be reached, for at most the normal link wait.
    pub(crate) async fn wait_for_app(&self, hub: &Hub, app: AppServerId) {
        let limit = self.settings.rehoming.link_wait(hub.settings().handshake_timeout_ms);
        hub.wait_until_reached(app, limit, || self.refuses_clients()).await;
    }
}

impl FleetSide {
    fn new(origin: AppServerId) -> Self {
        let client_port_hellos = HelloTable::default();
        Self {
            origin,
            client_port_hellos,
            moves: MoveQueue::default(),
            other_nodes: OnceLock::new(),
            recorder: OnceLock::new(),
        }
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
            listening_ended: CancellationToken::new(),
            have_requests_ended: AtomicBool::new(false),
            started: Instant::now(),
        }
    }
}
