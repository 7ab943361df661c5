//! Node without listeners: its shards run as tasks on the test's thread.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tower::ServiceExt;
use trunkline_protocol::access_token;
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::manifest::HubManifest;

use crate::edge::frontend::{Endpoint, ListenerGate, RequestSource, serve_pipe};
use crate::edge::observer::{Observer, Readiness};
use crate::engine::shard::drain::reroute::reroute;
use crate::engine::shard::{Connectors, ShardSender, Shared};
use crate::features::admission::Admission;
use crate::features::store;
use crate::features::webhook::Webhooks;
use crate::fleet::{Fleet, NodeStores};
use crate::ground::auth::AccessSettings;
use crate::ground::clock::unix_seconds;
use crate::ground::config::Settings;
use crate::ground::net::connector::{Connector, MemoryNetwork};
use crate::ground::net::node_port::NodePort;
use crate::ground::net::resolver::Resolver;
use crate::ground::routing::Ruleset;
use crate::node::shard_thread;

use super::app::App;

pub(super) const KEY: &str = "the access key of the contract tests";

const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);

/// Longer than any timeout of a node; passes instantly when all tasks are idle.
const NEVER: Duration = Duration::from_secs(3600);

/// Capacity of a client pipe in each direction.
const PIPE_BYTES: usize = 64 * 1024;

/// Sockets accepted from the network in memory or through the broker.
pub(super) fn accepted_pipes(
    accepted: UnboundedReceiver<DuplexStream>,
    stores: &NodeStores,
    port: NodePort,
) -> LocalBoxStream<'static, DuplexStream> {
    let broker = stores.broker.as_ref().map(|broker| broker.listen(port));
    let by_broker = stream::iter(broker)
        .flat_map(|pipes| stream::unfold(pipes, |mut pipes| async { Some((pipes.recv().await?, pipes)) }));
    let by_network = stream::unfold(accepted, |mut accepted| async { Some((accepted.recv().await?, accepted)) });
    stream::select(by_broker, by_network).boxed_local()
}

#[derive(Clone)]
pub(super) struct Fixture {
    pub(super) shared: Arc<Shared>,
    pub(super) admission: Arc<Admission>,
    pub(super) stores: NodeStores,
    pub(super) webhooks: Arc<Webhooks>,
    routers: Vec<Router>,
    next_shard: Rc<Cell<usize>>,
}

/// Runs a test on a single-threaded runtime with local tasks and paused time.
pub(super) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let guarded = async { timeout(NEVER, test).await.expect("the test waits for something that never comes") };
    LocalSet::new().block_on(&runtime, guarded)
}

/// Stands in for tokio in the expansion of its test macro, for tests that name it as `crate = "paused"`. Such tests are
/// executed by [`run`].
pub(super) mod paused {
    pub(in crate::contract) use tokio::pin;

    pub(in crate::contract) mod runtime {
        use std::convert::Infallible;

        pub(in crate::contract) struct Builder;

        impl Builder {
            pub(in crate::contract) fn new_current_thread() -> Self {
                Self
            }

            pub(in crate::contract) fn enable_all(self) -> Self {
                self
            }

            pub(in crate::contract) fn build(self) -> Result<Self, Infallible> {
                Ok(self)
            }

            pub(in crate::contract) fn block_on<F: Future>(self, test: F) -> F::Output {
                super::super::run(test)
            }
        }
    }
}

/// Settings of a node, with its keys and tokens.
pub(super) type NodeSettings = (Settings, AccessSettings);

impl From<Settings> for NodeSettings {
    fn from(settings: Settings) -> Self {
        (settings, AccessSettings::default())
    }
}

pub(super) fn settings() -> Settings {
    let keys = AccessKeys::new(vec![AccessKey::new(KEY).unwrap()]).unwrap();
    Settings { node: "n1".into(), ..Settings::embedded(keys, Vec::new(), false) }
}

impl Fixture {
    pub(super) fn start() -> Self {
        Self::with(settings(), 1)
    }

    /// Starts a node with one shard and changed settings.
    pub(super) fn set(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::with(settings, 1)
    }

    pub(super) fn with(settings: impl Into<NodeSettings>, shards: u16) -> Self {
        Self::connected(settings.into(), shards, Connectors::default())
    }

    /// Starts a node with one shard, reachable by other nodes at this address of an in-memory network.
    pub(super) fn at(address: &str, network: &MemoryNetwork, settings: impl Into<NodeSettings>) -> Self {
        Self::named(address, (address, Resolver::default()), network, settings)
    }

    /// Starts a node with one shard, reachable by other nodes under this name at an address of an in-memory network. It
    /// resolves names of other nodes with this resolver.
    pub(super) fn named(
        name: &str,
        (address, resolver): (&str, Resolver),
        network: &MemoryNetwork,
        settings: impl Into<NodeSettings>,
    ) -> Self {
        let (settings, access) = settings.into();
        let accepted = network.listen(&address.parse().unwrap());
        let fleet = Connector::in_memory(network.clone());
        let connectors = Connectors { fleet, resolver };
        let advertise = Some(name.parse().unwrap());
        let fixture = Self::connected((Settings { advertise, ..settings }, access), 1, connectors);
        let (shared, router) = (fixture.shared.clone(), fixture.routers[0].clone());
        let mut accepted = accepted_pipes(accepted, &fixture.stores, NodePort::Clients);
        spawn_local(async move {
            while let Some(stream) = accepted.next().await {
                let gate = ListenerGate::new(shared.clone(), shared.counters_of(0));
                spawn_local(serve_pipe(stream, SocketAddr::from(([192, 0, 2, 9], 9)), gate, router.clone()));
            }
        });
        fixture
    }

    fn connected((settings, access): NodeSettings, shards: u16, mut connectors: Connectors) -> Self {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| ShardSender::new()).unzip();
        let mut stores = NodeStores::new(&settings, access, Connector::default());
        let engine = connectors.fleet.memory().filter(|_| settings.fleet.by_nats).map(MemoryNetwork::shared);
        let carried = engine.map(|engine| stores.carry_by(&engine, &settings));
        if let Some(broker) = &stores.broker {
            connectors.fleet = connectors.fleet.by_broker(broker.clone());
        }
        let admission = stores.admission.clone();
        let shared = Shared::new(settings, stores.seams(), connectors, senders);
        for (index, inbox) in (0..shards).zip(inboxes) {
            spawn_local(shard_thread::run(index, (shared.clone(), admission.clone(), None), Vec::new(), inbox));
        }
        if let Some(store) = carried {
            tokio::spawn(store::keep(Some(store), shared.clone()));
        }
        let webhooks = Arc::new(Webhooks::new(&shared));
        webhooks.open_hubs(&shared);
        // Tests with several nodes create their own fleets.
        let is_alone = !shared.settings.fleet.has_peers() && !shared.settings.rest.is_on();
        let fleet = is_alone.then(|| Fleet::new(shared.clone(), stores.clone(), ([127, 0, 0, 1], 8090).into()));
        let router = |(index, shard): (u16, &ShardSender)| {
            let endpoint = Endpoint::new(shared.clone(), admission.clone(), shared.counters_of(index), shard.clone());
            let endpoint = endpoint.with_webhooks(&webhooks);
            let endpoint = fleet.iter().fold(endpoint, |endpoint, fleet| endpoint.with_fleet(fleet));
            Arc::new(endpoint).into_router()
        };
        let routers = (0..).zip(shared.shards()).map(router).collect();
        Self { shared, admission, stores, webhooks, routers, next_shard: Rc::default() }
    }

    /// Fleet of this node alone.
    pub(super) fn fleet(&self) -> Fleet {
        Fleet::new(self.shared.clone(), self.stores.clone(), ([127, 0, 0, 1], 8090).into())
    }

    /// Observer of this node alone.
    pub(super) fn observer(&self) -> Observer {
        self.observer_in(self.fleet())
    }

    pub(super) fn observer_in(&self, fleet: Fleet) -> Observer {
        Observer::new(Readiness::new(self.shared.clone(), Arc::default()), fleet)
    }

    /// Adds an app server with these hubs, with links to it.
    pub(super) fn app(&self, instance: &str, hubs: Vec<HubManifest>) -> App {
        App::start(&self.shared, instance, hubs)
    }

    pub(super) fn ruled(rules: &str) -> Self {
        let rules = Arc::new(Ruleset::parse(rules).unwrap());
        Self::with(Settings { rules, ..settings() }, 1)
    }

    /// Replaces the rules, as a reload of the file does.
    pub(super) fn apply(&self, rules: &str) {
        let (rules, hubs) = (Arc::new(Ruleset::parse(rules).unwrap()), &self.shared.hubs);
        for rule in &rules.groups {
            hubs.groups.set(&rule.name, self.shared.default_terms(), rules.is_mirror(&rule.name));
        }
        hubs.apply_rules(&rules);
        self.shared.shards().iter().for_each(|shard| shard.post(reroute));
    }

    /// Sends a request to the first shard, with a client address as from its listener.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        self.answer_by(false, request).await
    }

    /// Sends a request as from a listener with or without TLS.
    pub(super) async fn answer_by(&self, is_tls: bool, mut request: Request<Body>) -> Response {
        RequestSource { is_tls, ..RequestSource::from_peer(PEER.into()) }.attach(&mut request);
        self.routers[0].clone().oneshot(request).await.unwrap()
    }

    /// Opens a connection to the node, with shards in turn, starting with the first.
    pub(super) fn dial(&self) -> DuplexStream {
        self.dial_with(PIPE_BYTES)
    }

    /// Opens a connection with a pipe of this capacity in each direction.
    pub(super) fn dial_with(&self, bytes: usize) -> DuplexStream {
        self.dial_from(PEER.into(), bytes)
    }

    /// Opens a connection from this address.
    pub(super) fn dial_from(&self, peer: SocketAddr, bytes: usize) -> DuplexStream {
        let (near, far) = duplex(bytes);
        let turn = self.next_shard.get();
        self.next_shard.set(turn + 1);
        let index = turn % self.routers.len();
        let gate = ListenerGate::new(self.shared.clone(), self.shared.counters_of(u16::try_from(index).unwrap()));
        spawn_local(serve_pipe(near, peer, gate, self.routers[index].clone()));
        far
    }
}

/// Access token of this user, as a query parameter.
pub(super) fn token_of(user: &str) -> String {
    token_until(user, unix_seconds() + 3600)
}

/// Access token of this user with this many roles, as a query parameter.
pub(super) fn token_of_roles(user: &str, count: usize) -> String {
    let roles: Vec<_> = (0..count).map(|number| ("role".to_owned(), format!("role-{number:04}"))).collect();
    access_token::sign(&AccessKey::new(KEY).unwrap(), user, &roles, unix_seconds() + 3600)
}

/// Access token that expires at this second since 1970.
pub(super) fn token_until(user: &str, expires_s: u64) -> String {
    access_token::sign(&AccessKey::new(KEY).unwrap(), user, &[], expires_s)
}
