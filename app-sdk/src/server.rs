//! Server of hubs: the routes that proxies use, and the handles that the app uses.

mod access;
mod channel;
mod drain;
#[cfg(feature = "embedded")]
mod embedded;
mod handle;
mod http_serving;
mod negotiation;
mod routes;
mod serve;
mod server_core;
mod service_negotiation;
mod user;
mod user_extractor;

use std::collections::BTreeMap;
#[cfg(feature = "embedded")]
use std::io;
#[cfg(feature = "embedded")]
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use trunkline_channel::HelloTable;
use trunkline_protocol::dial_in::ConnectionString;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::{EndpointKind, HubManifest, Manifest};
use trunkline_protocol::wire::{CHANNEL_PATH, LINK_PATH, MANIFEST_PATH, NEGOTIATE_PATH};

use crate::brief_debug::brief_debug;
use crate::dial::PlainHttp;
use crate::dispatch::Dispatcher;
use crate::error::BuildError;
use crate::hub::{BuiltHub, CompleteHub, RawEndpoint};
use crate::link::{LinkSocket, SlotKey};
use crate::outbound::Outbound;
use crate::raw::RawHandler;
use crate::sync::write_lock;

use access::Access;
use channel::ChannelRoute;
#[cfg(feature = "embedded")]
use embedded::NodeChoice;
pub use handle::{HubHandle, ServerHandle};
pub use negotiation::Negotiation;
pub use serve::{Serve, listen, serve};
use server_core::{ReadyServer, ServerCore};
pub use user::{TokenError, User, UserToken};
pub(crate) use user_extractor::ProxyVerified;
pub use user_extractor::UserRejection;

/// Time limit for running methods when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of bytes that wait for one link, or for an acknowledgement, before sends wait. Enough for a burst
/// to thousands of clients, and small enough for an app server with ten links.
const LINK_OUTBOX_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Default number of connections to a service per hub, as in Azure's SDK.
const SERVER_CONNECTIONS: u32 = 5;

/// App server: its hubs, and the access keys that it shares with its proxies.
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
    core: Arc<ServerCore>,
    manifest: Manifest,
    negotiators: BTreeMap<String, MethodRouter>,
    keys: Vec<String>,
    names: Vec<String>,
    services: Vec<ConnectionString>,
    plain_http: PlainHttp,
    server_connections: u32,
    outbox_max_bytes: usize,
    shutdown_timeout: Duration,
    #[cfg(feature = "embedded")]
    node: NodeChoice,
    /// The first error. `into_router` returns it, so that a server can be built in one chain of calls.
    error: Option<BuildError>,
}

/// Hub of a server that is linked to the test kit.
pub(crate) struct LinkedHub {
    pub(crate) instance: String,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) negotiator: Option<MethodRouter>,
}

impl Server {
    /// Creates a server without hubs.
    pub fn new() -> Self {
        let instance = random_id();
        let core = ServerCore::new(instance.as_str().into());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "app".to_owned());
        Self {
            core: Arc::new(core),
            manifest: Manifest { instance, name, version, hubs: Vec::new() },
            negotiators: BTreeMap::new(),
            keys: Vec::new(),
            names: Vec::new(),
            services: Vec::new(),
            plain_http: PlainHttp::OnThisMachine,
            server_connections: SERVER_CONNECTIONS,
            outbox_max_bytes: LINK_OUTBOX_MAX_BYTES,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            #[cfg(feature = "embedded")]
            node: NodeChoice::default(),
            error: None,
        }
    }

    /// Adds a hub. A hub without its state does not compile: see [`Hub::with_state`](crate::Hub::with_state).
    pub fn hub(mut self, hub: impl CompleteHub) -> Self {
        match hub.complete().build() {
            Ok(hub) => self.add_hub(hub),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Adds a raw endpoint: clients at `path` exchange texts and bytes with the handler, without a hub protocol. For
    /// an endpoint with a state or settings see [`raw_endpoint`](Self::raw_endpoint).
    ///
    /// ```
    /// use trunkline::{RawConnection, Server};
    ///
    /// async fn echo(mut connection: RawConnection) {
    ///     while let Some(message) = connection.recv().await {
    ///         if connection.send(message).await.is_err() {
    ///             return; // disconnected
    ///         }
    ///     }
    /// }
    ///
    /// let server = Server::new().raw("/echo", echo);
    /// ```
    pub fn raw<H: RawHandler<(), M>, M: 'static>(self, path: impl Into<String>, handler: H) -> Self {
        self.raw_endpoint(RawEndpoint::new(path, handler))
    }

    /// Adds a raw endpoint with a state or settings.
    pub fn raw_endpoint(mut self, endpoint: RawEndpoint) -> Self {
        match endpoint.build() {
            Ok(endpoint) => self.add_hub(endpoint),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Sets the display name in the logs and metrics of the proxies; the host name by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.manifest.name = name.into();
        self
    }

    /// Registers the server's metrics in a registry of the app, which can hold only one server's.
    /// [`ServerHandle::metrics`] then serves all metrics of this registry. By default the server has its own registry.
    /// The crate is re-exported: `trunkline::prometheus::Registry`.
    pub fn metrics_registry(mut self, registry: &prometheus::Registry) -> Self {
        if let Err(error) = self.core.metrics.share(registry) {
            self.error = self.error.or(Some(BuildError::Metrics(error)));
        }
        self
    }

    /// Adds an access key that the proxies have too. For a rotation, add several, separated by commas or by further
    /// calls: all are accepted. Without a key, the server reads `TRUNKLINE_ACCESS_KEY` and the files that
    /// `TRUNKLINE_ACCESS_KEY_FILE` names; without these, it uses the development key, which works only for proxies on
    /// this machine.
    pub fn access_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds a host by which proxies dial this app server, that is, the host of their `--upstream`: `shop`, `*.shop.svc`
    /// or `10.0.0.7`. Separate several by commas or by further calls. Proxies that dialled another name, by mistake or
    /// in an attack, are refused. Without a host, the server reads `TRUNKLINE_DIALLED_AS`; without that, it accepts
    /// every name. Use it if several apps share one access key.
    pub fn dialled_as(mut self, host: impl Into<String>) -> Self {
        self.names.push(host.into());
        self
    }

    /// Sets how many bytes may wait for one link, or for an acknowledgement, before sends wait; 16 MiB by default.
    /// While a link is disconnected, the app can send this much to its proxy without waiting.
    pub fn link_outbox_max_bytes(mut self, bytes: usize) -> Self {
        self.outbox_max_bytes = bytes;
        self
    }

    /// Sets the time limit for running methods when the server [stops](ServerHandle::shutdown); 10 s by default. Then
    /// they are aborted and their callers get an error. Methods waiting for a client's result or the rest of its upload
    /// get [`InvokeError::Leaving`](crate::InvokeError::Leaving) and one more second to return.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Dials a service instead of being dialled by proxies: a Trunkline proxy with an `--access-key`, or Azure
    /// SignalR. Use it for app servers that accept no connections from outside, for example behind NAT or a firewall.
    ///
    /// The service's portal or operator provides the connection string, in the format of Azure's SDK for .NET:
    /// `Endpoint=https://HOST;Port=PORT;AccessKey=KEY;Version=1.0;`. An `https` endpoint requires the feature `tls`.
    /// Over `http` to another machine, both ends prove that they have the key and encrypt with it. A service that does
    /// not support this, such as Azure's, is refused unless [`allow_plain_http`](Self::allow_plain_http) is set.
    ///
    /// The router then answers `POST {hub}/negotiate` of each hub: it authenticates the user with the access token or
    /// [`Hub::on_negotiate`](crate::Hub::on_negotiate), and redirects the client to the service. Pages and hubs stay
    /// unchanged.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use axum::Router;
    /// use trunkline::{Hub, Server};
    ///
    /// let place = "Endpoint=http://127.0.0.1;Port=8080;AccessKey=a secret of at least 16 bytes;Version=1.0;";
    /// let server = Server::new().hub(Hub::new("/chat")).dial(place);
    /// let handle = server.handle();
    /// let app: Router = Router::new().merge(server.into_router()?); // dials from here on
    /// # let _ = (app, handle);
    /// # Ok(()) }
    /// ```
    ///
    /// - Call `into_router` in the Tokio runtime that runs the hubs. It returns an error if the connection string is
    ///   invalid; the error names the key of the string and the allowed values.
    /// - While a service can't be reached, the server retries and logs the cause and what to check, and negotiate
    ///   responds with 503.
    /// - Several calls dial several services. Each client is redirected to one of them; sends go to all.
    /// - Without an [`access_key`](Self::access_key), the key of the connection string also verifies the users'
    ///   tokens.
    /// - Each hub has five connections to the service ([`server_connections`](Self::server_connections)). All messages
    ///   of a call use its client's connection, so they arrive in order, as do those of a task outside of calls.
    /// - Raw endpoints are not available through a service.
    pub fn dial(mut self, connection_string: impl AsRef<str>) -> Self {
        match connection_string.as_ref().parse() {
            Ok(service) => self.services.push(service),
            Err(error) => self.error = self.error.or(Some(BuildError::ConnectionString(error))),
        }
        self
    }

    /// Allows plain HTTP to services on other machines that are [dialled](Self::dial) by `http` URLs. Anyone on the
    /// network path, or at the address, can then read and forge the messages of this app server and its clients. Also
    /// set by the environment variable `TRUNKLINE_DIAL_PLAIN_HTTP=true`.
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http = PlainHttp::Anywhere;
        self
    }

    /// Sets the number of connections that each hub keeps to each [dialled](Self::dial) service; 5 by default. The
    /// service may request more.
    pub fn server_connections(mut self, connections: u32) -> Self {
        self.server_connections = connections.max(1);
        self
    }

    /// Serves clients without a proxy: the router also handles negotiate and connect at the path of each hub.
    ///
    /// This runs the proxy's code on its own thread, for this app server only. To connect clients of several app
    /// servers, add proxies, at any time; hubs need no change.
    ///
    /// - Call `into_router` in the Tokio runtime that runs the hubs.
    /// - Paths of hubs are case-sensitive, like the router's; a trailing slash makes no difference.
    /// - The access key seals the connection tokens. Without one, pages of this machine may connect from any origin;
    ///   see [`allow_origin`](Self::allow_origin).
    /// - [`ServerHandle::shutdown`] asks clients to reconnect.
    ///
    /// ```no_run
    /// use std::net::SocketAddr;
    /// use trunkline::{Hub, Server};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = Server::new().hub(Hub::new("/chat")).embedded().into_router()?;
    /// let listener = trunkline::listen("127.0.0.1:5000").await?;
    /// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "embedded")]
    pub fn embedded(mut self) -> Self {
        self.node.is_embedded = true;
        self
    }

    /// Never compiles if it is called: the compiler error names the missing feature.
    #[cfg(not(feature = "embedded"))]
    #[doc(hidden)]
    pub fn embedded(self) -> Self
    where
        for<'a> &'a Self: missing_feature::Embedded,
    {
        self
    }

    /// Allows pages of this origin, such as `https://app.example`, `https://*.example.com` or `tauri://localhost`, to
    /// connect to hubs that are served [without a proxy](Self::embedded), like `--allow-origin` of a proxy. Pages of
    /// the app itself are always allowed.
    #[cfg(feature = "embedded")]
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.node.allow_origins.push(origin.into());
        self
    }

    /// Opens the admin port of the node [inside the app](Self::embedded), like `--admin` of a proxy: `/healthz`,
    /// `/readyz`, `/metrics`, the observer page, and its API, which `trunkline top`, `trunkline trace` and other
    /// subcommands use.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use axum::Router;
    /// use trunkline::{Hub, Server};
    ///
    /// let server = Server::new().hub(Hub::new("/chat")).embedded().admin("127.0.0.1:0");
    /// # let server = server.access_key("a secret of at least 16 bytes");
    /// let handle = server.handle();
    /// let app: Router = server.into_router()?;
    /// println!("observer page: http://{}/", handle.admin_addr().expect("it was asked for"));
    /// # let _ = app;
    /// # Ok(()) }
    /// ```
    ///
    /// - On a loopback address, everyone on this machine can read. Actions (close clients, read their messages)
    ///   require the [admin token](Self::admin_token), and so does reading from other machines.
    /// - The port is opened by `into_router`, which returns an error if the address is in use.
    #[cfg(feature = "embedded")]
    pub fn admin(mut self, address: impl ToSocketAddrs) -> Self {
        let found = address.to_socket_addrs().and_then(|mut all| {
            all.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"))
        });
        self.node.admin = Some(found);
        self
    }

    /// Sets the token that permits actions at the [admin port](Self::admin), like `--admin-token` of a proxy; at
    /// least 16 characters. By default, `TRUNKLINE_ADMIN_TOKEN` is read.
    #[cfg(feature = "embedded")]
    pub fn admin_token(mut self, token: impl Into<String>) -> Self {
        self.node.admin_token = Some(token.into());
        self
    }

    /// Returns a handle for sends, metrics and shutdown from anywhere in the app, valid before and after the router is
    /// made.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::clone(&self.core))
    }

    /// Returns the routes for proxies, all below `/.trunkline/`, to merge into the app's router. Merge them after the
    /// `.layer(…)` of a middleware that requires a login, which proxies don't have. The routes check the access key
    /// themselves.
    ///
    /// ```
    /// use axum::{Router, middleware, routing::get};
    /// # use axum::{extract::Request, middleware::Next, response::Response};
    /// # async fn require_login(request: Request, next: Next) -> Response { next.run(request).await }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = trunkline::Server::new().access_key("a secret of at least 16 bytes");
    /// let app: Router = Router::new()
    ///     .route("/private", get(|| async { "for members" }))
    ///     .layer(middleware::from_fn(require_login))
    ///     .merge(server.into_router()?); // after the layer, so it does not apply
    /// # Ok(()) }
    /// ```
    ///
    /// Serve the router with [`trunkline::serve`](crate::serve()). Otherwise, use
    /// `into_make_service_with_connect_info::<SocketAddr>()`, so that the development key is refused to other machines,
    /// and set `TCP_NODELAY` ([`ListenerExt::tap_io`](axum::serve::ListenerExt::tap_io)), so that no message waits for
    /// a full packet.
    ///
    /// # Errors
    /// Returns the first error if a hub, a method or a key is invalid.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Result<Router<S>, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        trunkline_process::log_open_files();
        #[cfg(feature = "embedded")]
        match &self.node {
            node if node.is_embedded && !self.services.is_empty() => return Err(BuildError::EmbeddedAndDialled),
            node if node.admin.is_some() && !node.is_embedded => return Err(BuildError::AdminWithoutNode),
            _ => {}
        }
        let dialled = self.services.iter().map(|service| service.access_key().clone()).collect();
        let access = Access::new(&self.keys, dialled)?.named(&self.names)?;
        let (manifest, negotiators) = (self.manifest, self.negotiators);
        let (outbox_max_bytes, shutdown_timeout) = (self.outbox_max_bytes, self.shutdown_timeout);
        let ready = ReadyServer { manifest, negotiators, outbox_max_bytes, shutdown_timeout };
        // `self` is consumed, so this core has one router.
        #[cfg_attr(not(feature = "embedded"), expect(unused_variables, reason = "only a node inside needs them"))]
        let access = self.core.access.get_or_init(|| access);
        let ready = self.core.ready.get_or_init(|| ready);
        tracing::debug!(instance = %self.core.instance, hubs = ready.manifest.hubs.len(), "server is put together");
        let inside = Router::new()
            .route(MANIFEST_PATH, get(routes::manifest))
            .route(LINK_PATH, get(routes::link))
            .route(NEGOTIATE_PATH, post(negotiation::negotiate))
            .with_state(Arc::clone(&self.core));
        let route = ChannelRoute { core: Arc::clone(&self.core), hellos: HelloTable::default(), inside };
        let router: Router = Router::new().route(CHANNEL_PATH, get(channel::channel)).with_state(route);
        let router = match self.services.is_empty() {
            true => router,
            false => router.merge(service_negotiation::start(
                &self.core,
                ready,
                (self.services, self.plain_http),
                self.server_connections,
            )?),
        };
        #[cfg(feature = "embedded")]
        let router = match self.node.is_embedded {
            true => router.merge(embedded::start(&self.core, ready, access, self.node)?),
            false => router,
        };
        Ok(router.with_state(()))
    }

    /// Opens an in-memory link to each hub for a test that acts as the proxy, with the given or random keys.
    pub(crate) fn into_links(
        mut self,
        mut socket_of: impl FnMut(&HubManifest, LinkedHub) -> LinkSocket,
    ) -> Result<(), BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let access = Access::for_tests(&self.keys)?;
        self.core.access.get_or_init(|| access);
        // The test kit does not simulate raw endpoints.
        for hub in self.manifest.hubs.iter().filter(|hub| hub.kind == EndpointKind::Hub) {
            let key = SlotKey { hub: hub.name.as_str().into(), node: "test".into(), boot: "test".into(), slot: 0 };
            let link = self.core.link(key, self.outbox_max_bytes, self.core.shutdown.clone());
            if let Some((link, dispatcher)) = link.zip(self.core.hub(&hub.name)) {
                let instance = self.core.instance.to_string();
                let linked = LinkedHub { instance, dispatcher, negotiator: self.negotiators.remove(&hub.name) };
                tokio::spawn(self.core.tasks.track_future(link.run(socket_of(hub, linked))));
            }
        }
        Ok(())
    }

    fn add_hub(&mut self, hub: BuiltHub) {
        if let Some(outbound) = self.register(hub.manifest.clone()) {
            let name = hub.manifest.name.clone();
            if let Some(handler) = hub.on_negotiate.clone() {
                self.negotiators.insert(name.clone(), handler);
            }
            let endpoints = if hub.raw.is_some() { &self.core.raw } else { &self.core.hubs };
            let dispatcher = Dispatcher::new(hub, Arc::clone(&self.core.instance), outbound, self.core.tasks.clone());
            write_lock(endpoints).insert(name, dispatcher);
        }
    }

    /// Adds a hub or a raw endpoint to the manifest, unless its name or its path is taken. Returns its outbound side.
    fn register(&mut self, entry: HubManifest) -> Option<Outbound> {
        let known = &self.manifest.hubs;
        if known.iter().any(|known| known.name == entry.name) {
            self.error = self.error.take().or(Some(BuildError::DuplicateName(entry.name)));
            return None;
        }
        if known.iter().any(|known| known.path.to_lowercase() == entry.path.to_lowercase()) {
            self.error = self.error.take().or(Some(BuildError::DuplicatePath(entry.path)));
            return None;
        }
        write_lock(&self.core.names).insert(entry.path.to_lowercase(), entry.name.clone());
        let outbound = Outbound::new(&entry.name, self.core.metrics.hub(&entry.name));
        self.manifest.hubs.push(entry);
        Some(outbound)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

brief_debug!(LinkedHub, |it| { instance: it.instance });

brief_debug!(Server, |it| { manifest: it.manifest });

/// Names of disabled features, for compiler messages.
#[cfg(not(feature = "embedded"))]
mod missing_feature {
    /// Trait without implementations unless the feature `embedded` is enabled.
    #[diagnostic::on_unimplemented(
        message = "the feature `embedded` of the crate `trunkline` is not enabled",
        label = "needs the feature `embedded`",
        note = "in `Cargo.toml`: `features = [\"embedded\"]` of `trunkline`; behind proxies an app needs no node inside"
    )]
    pub trait Embedded {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hub, RawConnection};

    const KEY: &str = "a secret of at least 16 bytes";

    async fn nothing() {}

    async fn raw_nothing(_: RawConnection) {}

    fn error(server: Server) -> BuildError {
        server.access_key(KEY).into_router::<()>().unwrap_err()
    }

    #[test]
    fn doubled_hubs_and_methods_are_refused() {
        let doubled_name = Server::new().hub(Hub::new("/a/chat")).hub(Hub::new("/b/chat"));
        let problem = error(doubled_name);
        assert!(problem.to_string().contains("give one of them another name by `.name(\"…\")`"), "{problem}");
        assert!(matches!(problem, BuildError::DuplicateName(name) if name == "chat"));
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
    fn a_handle_finds_hubs_and_refuses_unknown_names() {
        let handle = Server::new().hub(Hub::new("/chat")).handle();
        assert_eq!(handle.hub("chat").unwrap().name(), "chat");
        assert!(handle.hub("talk").unwrap_err().to_string().contains("talk"));
    }

    #[test]
    fn hubs_and_raw_endpoints_share_names_and_paths() {
        let doubled_name = Server::new().hub(Hub::new("/a/echo")).raw("/b/echo", raw_nothing);
        assert!(matches!(error(doubled_name), BuildError::DuplicateName(name) if name == "echo"));
        let named = RawEndpoint::new("/Echo", raw_nothing).name("other");
        assert!(matches!(
            error(Server::new().raw("/echo", raw_nothing).raw_endpoint(named)),
            BuildError::DuplicatePath(_)
        ));
        assert!(matches!(error(Server::new().raw("echo", raw_nothing)), BuildError::Path(_)));
        assert!(matches!(error(Server::new().raw("/echo/{id}", raw_nothing)), BuildError::PathParameter(_)));
    }

    #[test]
    fn a_handle_distinguishes_hubs_from_raw_endpoints() {
        let handle = Server::new().hub(Hub::new("/chat")).raw("/echo", raw_nothing).handle();
        assert_eq!(handle.raw("echo").unwrap().name(), "echo");
        assert!(handle.raw("chat").is_err());
        assert!(handle.hub("echo").is_err());
    }
}
