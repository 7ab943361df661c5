//! Handles to a server and its hubs, from outside of their methods: sends, metrics, shutdown.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{MethodRouter, get};
use futures_util::future::select_all;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};
use trunkline_protocol::key::AccessKeys;

use super::access::Access;
use super::server_core::ServerCore;
use super::user::{TokenError, User};
use super::user_token::UserToken;
use crate::clients::{Clients, Groups, Users};
use crate::error::UnknownHub;
use crate::hub_core::HubCore;
use crate::presence::{FromNotice, NoticeHub};
use crate::raw::RawHandle;
use crate::sync::read;

/// Time at the end of a shutdown for `on_disconnected` of clients whose methods have not returned.
const LAST_HOOKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time at the end of a stop that is left to HTTP requests.
const LAST_REQUESTS_REST: Duration = Duration::from_secs(1);

/// Handle of a server. Cheap to clone, for background tasks and HTTP handlers.
///
/// ```no_run
/// # use trunkline::{Hub, Server};
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::new().hub(Hub::new("/news"));
/// let news = server.handle().hub("news")?;
/// tokio::spawn(async move {
///     news.linked().await;
///     loop {
///         let sent = news.clients().all().send("Tick", ()).await;
///         println!("queued at {} proxies", sent.map_or(0, |sent| sent.proxies()));
///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
///     }
/// });
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    core: Arc<ServerCore>,
}

/// Handle of a hub, to send from outside of its methods.
#[derive(Clone)]
pub struct HubHandle {
    core: Arc<HubCore>,
}

impl ServerHandle {
    pub(super) fn new(core: Arc<ServerCore>) -> Self {
        Self { core }
    }

    /// The hub of this name or path: `news` or `/news`. Hubs are found from the moment when they are added to the
    /// server, so a hub that sends to another one has the server's handle in its state, and looks the other one up when
    /// it sends:
    ///
    /// ```
    /// use axum::extract::State;
    /// use trunkline::{Hub, HubError, Server, ServerHandle};
    ///
    /// async fn publish(State(server): State<ServerHandle>, text: String) -> Result<(), HubError> {
    ///     server.hub("/news")?.clients().all().send("News", (text,)).await?;
    ///     Ok(())
    /// }
    ///
    /// let server = Server::new();
    /// let desk = Hub::new("/desk").method("Publish", publish).with_state(server.handle());
    /// let server = server.hub(desk).hub(Hub::new("/news"));
    /// ```
    ///
    /// # Errors
    /// When the server has no such hub.
    pub fn hub(&self, name: &str) -> Result<HubHandle, UnknownHub> {
        let hub = self.core.hub(&self.core.name_of(name)).ok_or_else(|| UnknownHub(name.to_owned()))?;
        Ok(HubHandle { core: Arc::clone(&hub.core) })
    }

    /// Core of the hub at this path, if its clients are served by proxies alone.
    pub(super) fn hub_of_proxies(&self, path: &str) -> Option<Arc<HubCore>> {
        let is_served_here = self.core.pools.get().is_some();
        #[cfg(feature = "embedded")]
        let is_served_here = is_served_here || self.core.embedded.get().is_some();
        let name = read(&self.core.names).get(&path.to_lowercase()).cloned().filter(|_| !is_served_here)?;
        Some(Arc::clone(&self.core.hub(&name)?.core))
    }

    /// The raw endpoint of this name or path.
    ///
    /// # Errors
    /// When the server has no such raw endpoint.
    pub fn raw(&self, name: &str) -> Result<RawHandle, UnknownHub> {
        let endpoint = self.core.raw(&self.core.name_of(name)).ok_or_else(|| UnknownHub(name.to_owned()))?;
        Ok(RawHandle::new(endpoint.outbound()))
    }

    /// Waits until proxies are linked: at least one, and each that has a link to any hub has one to all of them. Until
    /// then, some 100 ms after a start, sends reach nobody. Completes at once when it is so already; an app without
    /// hubs never waits.
    ///
    /// Proxies that have not called yet are not known. What is sent to many in the first 4 s after the first link
    /// reaches those, too, when they come.
    pub async fn linked(&self) {
        let hubs = self.core.hubs();
        loop {
            let mut changes: Vec<_> = hubs.iter().map(|hub| hub.core.outbound.link_changes()).collect();
            let linked: Vec<BTreeSet<_>> = hubs.iter().map(|hub| hub.core.outbound.far_ends()).collect();
            let is_linked = linked.iter().all(|ends| !ends.is_empty() && Some(ends) == linked.first());
            if is_linked {
                return;
            }
            // The senders live as long as the hubs.
            let _ = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed()))).await;
        }
    }

    /// The keys, once they are read; for the test kit.
    pub(crate) fn keys(&self) -> Option<&AccessKeys> {
        self.core.access.get().map(Access::keys)
    }

    /// Random id of this process, as its proxies know it.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.core.instance
    }

    /// Address of the [admin port](crate::Server::admin), once the router is made; `None` if the app has none.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn admin_addr(&self) -> Option<std::net::SocketAddr> {
        self.core.embedded.get()?.admin()
    }

    /// The node inside the app, once the router is made.
    #[cfg(feature = "embedded")]
    pub(super) fn node(&self) -> Option<&trunkline_proxy::Embedded> {
        self.core.embedded.get()
    }

    /// Whether the development key is used, because no access key was given: then listen on loopback only.
    /// Known once the router is made.
    #[must_use]
    pub fn uses_development_key(&self) -> bool {
        self.core.is_development()
    }

    /// Makes an access token for a user, as `trunkline token user` does: signed with the first access key of the
    /// server, so that all proxies of the fleet and the extractor [`User`] accept it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use trunkline::{Hub, Server};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::new().hub(Hub::new("/board")).access_key("a secret of at least 16 bytes");
    /// let handle = server.handle();
    /// let router: axum::Router = server.into_router()?;
    /// let hour = Duration::from_secs(3600);
    /// let token = handle.token("ann").claim("role", "moderator").lifetime(hour).sign()?;
    /// assert_eq!(handle.verify(&token)?.claims().get("role"), Some("moderator"));
    /// # Ok(()) }
    /// ```
    pub fn token(&self, user_id: impl Into<String>) -> UserToken {
        UserToken::new(Arc::clone(&self.core), user_id.into())
    }

    /// Verifies an access token by the access keys of the server; for HTTP requests there is the extractor [`User`].
    ///
    /// # Errors
    /// When the token is no good, or names no user; and before [`Server::into_router`](crate::Server::into_router) was
    /// called.
    pub fn verify(&self, token: &str) -> Result<User, TokenError> {
        self.core.verify(token)
    }

    /// A route for `/metrics`, in Prometheus' text format; names begin with `trunkline_app_`, those of the process with
    /// `process_`. What else is in the [app's registry](crate::Server::metrics_registry) is served too.
    #[must_use = "the route is to be added to a router"]
    pub fn metrics<S: Clone + Send + Sync + 'static>(&self) -> MethodRouter<S> {
        let handle = self.clone();
        get(move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.metrics_text()) })
    }

    /// The text that [`metrics`](Self::metrics) serves.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.core.metrics.text()
    }

    /// Drains the server: another app server takes over each client of a proxy once its running methods have ended, for
    /// which they have 10 s ([`Server::shutdown_timeout`](crate::Server::shutdown_timeout)). So do client results that
    /// are waited for, and uploads: for as long as one of a client is open, its proxy reads it on, and what it calls
    /// meanwhile runs here, too. When the time is up, what still waits for clients fails with
    /// [`InvokeError::Leaving`](crate::InvokeError::Leaving). The client does not notice, and neither `on_disconnected`
    /// nor `on_connected` runs: see [`Hub::on_leaving`](crate::Hub::on_leaving) and
    /// [`Hub::on_rehomed`](crate::Hub::on_rehomed). While there is no other app server, its proxy keeps it for a while.
    ///
    /// Then all links are closed, after their proxies have acknowledged what was queued. Remaining clients, such as
    /// those of raw endpoints that are not [movable](crate::RawEndpoint::movable), are disconnected. Clients that are
    /// served without a proxy are asked to reconnect first, and have up to 5 s to leave.
    ///
    /// All of it takes no longer than the time for methods and 4 s more, whatever methods and hooks do; what has not
    /// returned by then is left running.
    ///
    /// [`trunkline::serve`](crate::serve()) calls it. Who serves otherwise calls it in axum's graceful shutdown, which
    /// knows nothing of links:
    ///
    /// ```no_run
    /// # async fn f(listener: tokio::net::TcpListener, app: axum::Router, handle: trunkline::ServerHandle) -> std::io::Result<()> {
    /// axum::serve(listener, app)
    ///     .with_graceful_shutdown(async move {
    ///         let _ = tokio::signal::ctrl_c().await;
    ///         handle.shutdown().await;
    ///     })
    ///     .await
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        let started = Instant::now();
        let deadline = self.core.stop_deadline(started) - LAST_REQUESTS_REST;
        self.core.drain(started).await;
        self.core.shutdown.cancel();
        self.core.tasks.close();
        let last_hooks_at = deadline - LAST_HOOKS_TIMEOUT;
        #[cfg(feature = "embedded")]
        if let Some(node) = self.core.embedded.get() {
            node.stop(last_hooks_at.saturating_duration_since(Instant::now())).await;
        }
        if timeout_at(last_hooks_at, self.core.tasks.wait()).await.is_ok() {
            return;
        }
        self.core.hubs().iter().for_each(|hub| hub.calls_given_up.cancel());
        if timeout_at(deadline, self.core.tasks.wait()).await.is_err() {
            let tasks = self.core.tasks.len();
            tracing::warn!(tasks, "methods or hooks are still running; the shutdown goes on without them");
        }
    }

    /// Time at which a stop that begins now is over, whatever still runs.
    pub(super) fn stop_deadline(&self) -> Instant {
        self.core.stop_deadline(Instant::now())
    }
}

impl HubHandle {
    /// The clients of this hub, to send to.
    #[must_use]
    pub fn clients(&self) -> Clients {
        Clients::new(&self.core)
    }

    /// The groups of this hub, to add connections to.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(&self.core)
    }

    /// The users of this hub, to ask who is online.
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(&self.core)
    }

    /// Waits until a proxy is linked: what is sent to many from then on reaches it, and those that come within the next
    /// 4 s. Before that, some 100 ms after a start, sends reach nobody.
    ///
    /// ```
    /// # async fn f(news: trunkline::HubHandle) -> Result<(), trunkline::SendError> {
    /// news.linked().await;
    /// news.clients().all().send("Back", ()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// A node inside the app counts as one, and so does a service that is [dialled](crate::Server::dial). It is no
    /// promise for later: [`proxies`](Self::proxies) tells what is now.
    pub async fn linked(&self) {
        self.core.outbound.linked().await;
    }

    /// Number of proxies that are linked now: as many as a send to many is queued at
    /// ([`Sent::proxies`](crate::Sent::proxies)). One whose links were cut a moment ago counts while they may come
    /// back.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.core.outbound.nodes().len()
    }

    /// Name of the hub.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }
}

impl<S, N> FromNotice<S, N> for HubHandle {
    fn from_notice(_notice: &N, hub: &NoticeHub, _state: &S) -> Self {
        Self { core: Arc::clone(&hub.0) }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("instance", &self.instance()).finish_non_exhaustive()
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubHandle({})", self.name())
    }
}
