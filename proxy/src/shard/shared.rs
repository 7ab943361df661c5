//! What all shards of a node share: settings, keys, hubs, routes, and each other's inboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::id::random_id;

use super::{Past, PastConnection, ShardSender};
use crate::auth::Verifier;
use crate::config::Settings;
use crate::limits::Tally;
use crate::metrics::Counters;
use crate::net::connector::Connector;
use crate::shard::directory::Routes;
use crate::transport::http_transport::HttpTransports;
use crate::upstream::{Caller, HubRegistry};

/// Where the sockets of clients come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// A shard accepts them itself.
    Own,
    /// From another runtime: they have to be moved to the shard's.
    Adopted,
}

/// Outgoing connectors of a node. They differ in the authorities they trust and in the client certificate they show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connectors {
    /// To app servers and other nodes.
    pub fleet: Connector,
    /// To those who publish keys of access tokens.
    pub issuers: Connector,
}

/// What all shards of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: Settings,
    /// Who may be who.
    pub verifier: Verifier,
    /// Which start of this node this is.
    pub boot: String,
    /// The hubs and the links to their app servers.
    pub hubs: HubRegistry,
    /// Where each client connection is.
    pub routes: Routes,
    /// The connections that are carried by requests.
    pub http_transports: HttpTransports,
    /// Connector to app servers and other nodes.
    pub connector: Connector,
    /// Where its clients' sockets come from.
    pub whose_sockets: Sockets,
    /// What is counted to hold the limits.
    pub tally: Tally,
    shards: Vec<ShardSender>,
    counters: Vec<Arc<Counters>>,
    past: Vec<Past>,
    sockets: AtomicU64,
    is_leaving: AtomicBool,
    is_draining: AtomicBool,
    started: Instant,
}

impl Shared {
    /// The common part of a node with these shards.
    #[must_use]
    pub(crate) fn new(settings: Settings, connectors: Connectors, shards: Vec<ShardSender>) -> Arc<Self> {
        Arc::new(Self::with(settings, connectors, shards, Sockets::Own))
    }

    /// The common part of a node inside an app, whose sockets come from the app's runtime.
    #[must_use]
    pub(crate) fn embedded(settings: Settings, shard: ShardSender) -> Arc<Self> {
        Arc::new(Self::with(settings, Connectors::default(), vec![shard], Sockets::Adopted))
    }

    fn with(settings: Settings, connectors: Connectors, shards: Vec<ShardSender>, whose_sockets: Sockets) -> Self {
        Self {
            whose_sockets,
            tally: Tally::new(&settings.limits),
            connector: connectors.fleet,
            verifier: Verifier::new(settings.tokens.clone(), &settings.keys, connectors.issuers),
            boot: random_id(),
            hubs: HubRegistry::default(),
            routes: Routes::default(),
            http_transports: HttpTransports::default(),
            counters: shards.iter().map(|_| Arc::default()).collect(),
            past: shards.iter().map(|_| Past::new(shards.len())).collect(),
            sockets: AtomicU64::new(0),
            is_leaving: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            started: Instant::now(),
            shards,
            settings,
        }
    }

    /// As whom this node asks app servers, and by which ways.
    #[must_use]
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller { node: &self.settings.node, keys: &self.settings.keys, connector: &self.connector }
    }

    /// The inbox of each shard, in their order.
    #[must_use]
    pub(crate) fn shards(&self) -> &[ShardSender] {
        &self.shards
    }

    /// What each shard counts, in their order.
    #[must_use]
    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// What one shard counts.
    #[must_use]
    pub(crate) fn counters_of(&self, shard: u16) -> Arc<Counters> {
        self.counters.get(usize::from(shard)).cloned().unwrap_or_default()
    }

    /// Takes note of a connection that a shard has ended, or that was refused.
    pub(crate) fn remember(&self, shard: u16, past: PastConnection) {
        if let Some(ring) = self.past.get(usize::from(shard)).or(self.past.first()) {
            ring.remember(past);
        }
    }

    /// What is remembered of a connection that ended in the last minutes.
    #[must_use]
    pub(crate) fn past(&self, id: &str) -> Option<Arc<PastConnection>> {
        self.past.iter().filter_map(|ring| ring.find(id)).max_by_key(|past| past.closed_ms)
    }

    /// How many sockets are client connections, or are about to be, or were.
    #[must_use]
    pub(crate) fn sockets(&self) -> u64 {
        self.sockets.load(Ordering::Relaxed)
    }

    /// A socket begins to be served.
    pub(crate) fn socket_began(&self) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// A socket has ended.
    pub(crate) fn socket_ended(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long ago the node started.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Milliseconds since the node started, for the counting of links.
    #[must_use]
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of such a number.
    #[must_use]
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }

    /// Whether the node stops: it is not ready any more.
    #[must_use]
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// The node is going to stop: load balancers shall turn away from it.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the node stops and takes nobody in.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// The node takes nobody in any more.
    pub(crate) fn drain(&self) {
        self.leave();
        self.is_draining.store(true, Ordering::Relaxed);
    }
}
