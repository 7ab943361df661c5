//! Core of a server, shared by its routes, handles and links.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use axum::routing::MethodRouter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::manifest::Manifest;
use trunkline_protocol::service::Capabilities;

use super::access::Access;
use crate::dial::ServerPool;
use crate::dispatch::Dispatcher;
use crate::link::{Link, SessionTerms, SlotKey, Slots};
use crate::metrics::Metrics;
use crate::outbound::Endpoint;
use crate::sync::read_lock;

pub(crate) struct ServerCore {
    pub(super) instance: Arc<str>,
    pub(super) hubs: RwLock<BTreeMap<String, Arc<Dispatcher>>>,
    pub(super) raw: RwLock<BTreeMap<String, Arc<Dispatcher>>>,
    /// Names of hubs and raw endpoints by path, in lower case.
    pub(super) names: RwLock<BTreeMap<String, String>>,
    pub(super) access: OnceLock<Access>,
    pub(super) metrics: Metrics,
    pub(super) slots: Arc<Slots>,
    pub(super) tasks: TaskTracker,
    /// Cancelled when the server starts to stop: new proxies are refused.
    pub(super) draining: CancellationToken,
    pub(super) shutdown: CancellationToken,
    pub(super) ready: OnceLock<ReadyServer>,
    /// Server connections to dialled services, set when the router is created.
    pub(super) pools: OnceLock<Vec<Arc<ServerPool>>>,
    #[cfg(feature = "embedded")]
    pub(super) embedded: OnceLock<trunkline_proxy::Embedded>,
}

pub(super) struct ReadyServer {
    pub(super) manifest: Manifest,
    pub(super) negotiators: BTreeMap<String, MethodRouter>,
    pub(super) outbox_max_bytes: usize,
    pub(super) shutdown_timeout: Duration,
}

impl ServerCore {
    pub(super) fn new(instance: Arc<str>) -> Self {
        Self {
            instance,
            hubs: RwLock::default(),
            raw: RwLock::default(),
            names: RwLock::default(),
            access: OnceLock::new(),
            metrics: Metrics::new(),
            slots: Arc::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            ready: OnceLock::new(),
            pools: OnceLock::new(),
            #[cfg(feature = "embedded")]
            embedded: OnceLock::new(),
        }
    }

    pub(super) fn hub(&self, name: &str) -> Option<Arc<Dispatcher>> {
        read_lock(&self.hubs).get(name).map(Arc::clone)
    }

    pub(super) fn hubs(&self) -> Vec<Arc<Dispatcher>> {
        read_lock(&self.hubs).values().cloned().collect()
    }

    pub(super) fn raw(&self, name: &str) -> Option<Arc<Dispatcher>> {
        read_lock(&self.raw).get(name).map(Arc::clone)
    }

    /// Name of a hub or raw endpoint by its path. A text that is not a path is returned unchanged.
    pub(super) fn name_of(&self, name_or_path: &str) -> String {
        let by_path =
            name_or_path.starts_with('/').then(|| read_lock(&self.names).get(&name_or_path.to_lowercase()).cloned());
        by_path.flatten().unwrap_or_else(|| name_or_path.to_owned())
    }

    pub(super) fn is_development(&self) -> bool {
        self.access.get().is_some_and(|access| access.is_development)
    }

    /// Creates a link that can run; `None` for an unknown hub or raw endpoint.
    pub(super) fn link(&self, key: SlotKey, outbox_max_bytes: usize, shutdown: CancellationToken) -> Option<Link> {
        let endpoint: Arc<dyn Endpoint> = Arc::new(self.hub(&key.hub).or_else(|| self.raw(&key.hub))?);
        let (slots, tasks) = (Arc::clone(&self.slots), self.tasks.clone());
        // In one process both ends have the same version; over a network, the proxy sends its capabilities.
        let client_message_max_bytes = Some(LINK_FRAME_MAX_BYTES);
        let capabilities = Capabilities { client_message_max_bytes, ..Capabilities::plain() };
        let ring_max_bytes = outbox_max_bytes;
        let terms = SessionTerms { endpoint, key, service: None, ring_max_bytes, capabilities, shutdown, tasks };
        Some(Link { terms, slots })
    }
}
