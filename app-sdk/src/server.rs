//! Puts hubs together into a server: what proxies find in the app's router, and what the app sends by.

mod access;
#[cfg(feature = "embedded")]
mod embedded;
mod endpoint;
mod handle;
mod leaving;
mod negotiate;
mod raw;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::{EndpointKind, HubManifest, LINK_PATH, MANIFEST_PATH, Manifest, NEGOTIATE_PATH};

use crate::connection::Limits;
use crate::dispatch::HubAtWork;
use crate::downward::Downward;
use crate::endpoint::Endpoint;
use crate::error::BuildError;
use crate::hub::{BuiltHub, Hub};
use crate::link::{Link, LinkSocket, SlotKey, Slots};
use crate::metrics::Metrics;
use crate::raw::RawAtWork;
use crate::sync::{read, write};

use access::Access;
pub use handle::{HubHandle, ServerHandle};

/// How long running methods may take when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// What may wait for one link, or to be acknowledged, before sends wait for it: enough for a burst to thousands of
/// clients, and little enough that an app server with ten links stays small.
const LINK_OUTBOX_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The hubs of an app server, and the keys by which it knows its proxies.
///
/// ```
/// use axum::{Router, routing::get};
/// use trunkline::{Hub, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::new().hub(Hub::new("/chat")).access_key("a secret of at least 16 bytes");
/// let handle = server.handle();
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .route("/metrics", handle.metrics())
///     .merge(server.into_router()?);
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing until its router is served"]
pub struct Server {
    core: Arc<Core>,
    manifest: Manifest,
    negotiators: BTreeMap<String, MethodRouter>,
    keys: Vec<String>,
    outbox_max_bytes: usize,
    shutdown_timeout: Duration,
    #[cfg(feature = "embedded")]
    is_embedded: bool,
    #[cfg(feature = "embedded")]
    allow_origins: Vec<String>,
    /// The first thing that is wrong; told when the router is asked for, so that building reads as one chain.
    error: Option<BuildError>,
}

/// What a running server consists of.
pub(crate) struct Core {
    instance: Arc<str>,
    hubs: RwLock<BTreeMap<String, Arc<HubAtWork>>>,
    raw: RwLock<BTreeMap<String, Arc<RawAtWork>>>,
    metrics: Metrics,
    slots: Arc<Slots>,
    tasks: TaskTracker,
    /// Fires when it is about to stop: no proxy begins with it any more.
    leaving: CancellationToken,
    shutdown: CancellationToken,
    ready: OnceLock<Ready>,
    #[cfg(feature = "embedded")]
    embedded: OnceLock<trunkline_proxy::Embedded>,
}

/// What is known once the router is made.
struct Ready {
    manifest: Manifest,
    /// Handlers of hubs that want to be asked about clients.
    negotiators: BTreeMap<String, MethodRouter>,
    access: Access,
    outbox_max_bytes: usize,
    shutdown_timeout: Duration,
}

impl Server {
    /// A server without hubs.
    pub fn new() -> Self {
        let instance = random_id();
        let core = Core {
            instance: instance.as_str().into(),
            hubs: RwLock::default(),
            raw: RwLock::default(),
            metrics: Metrics::new(),
            slots: Arc::default(),
            tasks: TaskTracker::new(),
            leaving: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            ready: OnceLock::new(),
            #[cfg(feature = "embedded")]
            embedded: OnceLock::new(),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "app".to_owned());
        Self {
            core: Arc::new(core),
            manifest: Manifest { instance, name, version, hubs: Vec::new() },
            negotiators: BTreeMap::new(),
            keys: Vec::new(),
            outbox_max_bytes: LINK_OUTBOX_MAX_BYTES,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            #[cfg(feature = "embedded")]
            is_embedded: false,
            #[cfg(feature = "embedded")]
            allow_origins: Vec::new(),
            error: None,
        }
    }

    /// Adds a hub. One with a state that is still missing doesn't fit: see [`Hub::with_state`].
    pub fn hub(mut self, hub: Hub) -> Self {
        match hub.build() {
            Ok(hub) => self.add(hub),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// A name for people, in logs and metrics of the proxies; the machine's by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.manifest.name = name.into();
        self
    }

    /// Puts the server's numbers into a registry of the app's: [`ServerHandle::metrics`] then serves all that is in it.
    /// Else they have a registry of their own. One registry can hold the numbers of one server.
    pub fn metrics_registry(mut self, registry: &prometheus::Registry) -> Self {
        if let Err(error) = self.core.metrics.share(registry) {
            self.error = self.error.or(Some(BuildError::Metrics(error)));
        }
        self
    }

    /// An access key that the proxies have too. Several, separated by commas or by further calls, make a rotation: all
    /// of them are accepted. Without any, `TRUNKLINE_ACCESS_KEY` and the files that `TRUNKLINE_ACCESS_KEY_FILE` names are
    /// read, and without these the development key of this machine, which is good for proxies on this machine only.
    pub fn access_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// What may wait for one link, or for a proxy's word that it has it, before sends wait, in bytes; 16 MiB by default.
    /// While a link is away it is what the app may send to its proxy without waiting.
    pub fn link_outbox_max_bytes(mut self, bytes: usize) -> Self {
        self.outbox_max_bytes = bytes;
        self
    }

    /// How long running methods may take when the server [stops](ServerHandle::shutdown), before they are given up and
    /// their callers get an error; 10 s by default.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Serves clients without a proxy in front: the router gets negotiate and connect of each hub too, at its path.
    ///
    /// This is the proxy's own code, on a thread of its own, for one app server alone. Clients of several such app servers
    /// don't see each other; proxies in front change that, and nothing in the hubs. Proxies may be in front at any
    /// time, also while clients connect here.
    ///
    /// - The router must be made in the Tokio runtime that is to run the hubs.
    /// - Case counts in the paths of hubs, because they are the router's; a slash at the end doesn't.
    /// - An access key seals the connection tokens. Without one, pages of this machine may connect whatever their
    ///   origin; see [`allow_origin`](Self::allow_origin).
    /// - [`ServerHandle::shutdown`] tells clients to connect again.
    ///
    /// ```no_run
    /// use std::net::SocketAddr;
    /// use trunkline::{Hub, Server};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = Server::new().hub(Hub::new("/chat")).embedded().into_router()?;
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:5000").await?;
    /// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "embedded")]
    pub fn embedded(mut self) -> Self {
        self.is_embedded = true;
        self
    }

    /// Lets pages of this origin, such as `https://app.example` or `https://*.example.com`, connect to hubs that are served
    /// [without a proxy](Self::embedded); pages of the app itself always may. Proxies have `--allow-origin`.
    #[cfg(feature = "embedded")]
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.allow_origins.push(origin.into());
        self
    }

    /// Sends, metrics and shutdown from anywhere in the app; good before and after the router is made.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::clone(&self.core))
    }

    /// The routes that proxies ask for, all below `/.trunkline/`, to be merged into the app's router.
    ///
    /// Serve the router with `into_make_service_with_connect_info::<SocketAddr>()`, so that the development key
    /// can be refused to peers from other machines; and with `TCP_NODELAY`
    /// ([`ListenerExt::tap_io`](axum::serve::ListenerExt::tap_io)), so that no message waits for a full packet.
    ///
    /// # Errors
    /// When a hub, a method or a key is no good; the first thing that is wrong.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Result<Router<S>, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let access = Access::new(&self.keys)?;
        let (manifest, negotiators) = (self.manifest, self.negotiators);
        let (outbox_max_bytes, shutdown_timeout) = (self.outbox_max_bytes, self.shutdown_timeout);
        let ready = Ready { manifest, negotiators, access, outbox_max_bytes, shutdown_timeout };
        // `self` is consumed, and nobody else makes a router of this core.
        let ready = self.core.ready.get_or_init(|| ready);
        tracing::debug!(instance = %self.core.instance, hubs = ready.manifest.hubs.len(), "server is put together");
        let router: Router = Router::new()
            .route(MANIFEST_PATH, get(endpoint::manifest))
            .route(LINK_PATH, get(endpoint::link))
            .route(NEGOTIATE_PATH, post(negotiate::negotiate))
            .with_state(Arc::clone(&self.core));
        #[cfg(feature = "embedded")]
        let router = match self.is_embedded {
            true => router.merge(embedded::start(&self.core, ready, self.allow_origins)?),
            false => router,
        };
        Ok(router.with_state(()))
    }

    /// Opens a link in memory to each hub, for whoever plays the proxy in a test; needs a runtime.
    pub(crate) fn into_links(self, mut socket_of: impl FnMut(&HubManifest) -> LinkSocket) -> Result<(), BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        // Nobody plays the proxy of a raw endpoint.
        for hub in self.manifest.hubs.iter().filter(|hub| hub.kind == EndpointKind::Hub) {
            let key = SlotKey { hub: hub.name.as_str().into(), node: "test".into(), boot: "test".into(), slot: 0 };
            if let Some(link) = self.core.link(key, self.outbox_max_bytes, self.core.shutdown.clone()) {
                tokio::spawn(self.core.tasks.track_future(link.run(socket_of(hub))));
            }
        }
        Ok(())
    }

    fn add(&mut self, hub: BuiltHub) {
        let (protocols, limits) = (hub.settings.protocols.clone(), hub.settings.limits);
        if let Some(down) = self.register(hub.manifest.clone(), protocols, limits) {
            let name = hub.manifest.name.clone();
            if let Some(handler) = hub.on_negotiate.clone() {
                self.negotiators.insert(name.clone(), handler);
            }
            write(&self.core.hubs).insert(name, HubAtWork::new(hub, down, self.core.tasks.clone()));
        }
    }

    /// Gives a hub or a raw endpoint its way down, unless its name or its path is taken.
    fn register(&mut self, entry: HubManifest, protocols: Vec<HubProtocol>, limits: Limits) -> Option<Arc<Downward>> {
        let known = &self.manifest.hubs;
        if known.iter().any(|known| known.name == entry.name) {
            self.error = self.error.take().or(Some(BuildError::DuplicateName(entry.name)));
            return None;
        }
        if known.iter().any(|known| known.path.to_lowercase() == entry.path.to_lowercase()) {
            self.error = self.error.take().or(Some(BuildError::DuplicatePath(entry.path)));
            return None;
        }
        let (core, name) = (&self.core, entry.name.as_str());
        let down = Downward::new(name, Arc::clone(&core.instance), protocols, limits, core.metrics.hub(name));
        self.manifest.hubs.push(entry);
        Some(Arc::new(down))
    }
}

impl Core {
    fn hub(&self, name: &str) -> Option<Arc<HubAtWork>> {
        read(&self.hubs).get(name).map(Arc::clone)
    }

    fn raw(&self, name: &str) -> Option<Arc<RawAtWork>> {
        read(&self.raw).get(name).map(Arc::clone)
    }

    /// A link to run; `None` when there is no such hub or raw endpoint.
    fn link(&self, key: SlotKey, outbox_max_bytes: usize, shutdown: CancellationToken) -> Option<Link> {
        let hub = self.hub(&key.hub).map(|hub| hub as Arc<dyn Endpoint>);
        let endpoint = hub.or_else(|| Some(self.raw(&key.hub)? as Arc<dyn Endpoint>))?;
        let (slots, tasks) = (Arc::clone(&self.slots), self.tasks.clone());
        // In one process both ends are of one version; whoever comes over the network says what it knows.
        let knows_causes = true;
        Some(Link { endpoint, key, slots, ring_max_bytes: outbox_max_bytes, knows_causes, shutdown, tasks })
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a secret of at least 16 bytes";

    async fn nothing() {}

    fn error(server: Server) -> BuildError {
        server.access_key(KEY).into_router::<()>().unwrap_err()
    }

    #[test]
    fn doubled_hubs_and_methods_are_refused() {
        let doubled_name = Server::new().hub(Hub::new("/a/chat")).hub(Hub::new("/b/chat"));
        assert!(matches!(error(doubled_name), BuildError::DuplicateName(name) if name == "chat"));
        let doubled_path = Server::new().hub(Hub::new("/chat")).hub(Hub::new("/Chat"));
        assert!(matches!(error(doubled_path), BuildError::DuplicatePath(_)));
        let doubled_method = Server::new().hub(Hub::new("/chat").method("a", nothing).method("A", nothing));
        assert!(matches!(error(doubled_method), BuildError::DuplicateMethod { .. }));
    }

    #[test]
    fn a_short_key_is_refused() {
        let server = Server::new().access_key("short");
        assert!(matches!(server.into_router::<()>(), Err(BuildError::AccessKey(_))));
    }

    #[test]
    fn a_handle_knows_the_hubs_and_refuses_others() {
        let handle = Server::new().hub(Hub::new("/chat")).handle();
        assert_eq!(handle.hub("chat").unwrap().name(), "chat");
        assert!(handle.hub("talk").unwrap_err().to_string().contains("talk"));
    }
}
