//! Handles to a server and its hubs, for use outside of hub methods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{MethodRouter, get};
use futures_util::future::select_all;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};
use trunkline_protocol::key::AccessKeys;

use super::server_core::ServerCore;
use super::user::{TokenError, User, UserToken};
use crate::brief_debug::brief_debug;
use crate::clients::{Clients, Groups, Users};
use crate::error::UnknownHub;
use crate::hub_core::HubCore;
use crate::presence::{FromNotice, NoticeHub};
use crate::raw::RawHandle;
use crate::sync::read_lock;

/// Time at the end of a shutdown for `on_disconnected` of clients with methods still running.
const LAST_HOOKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time at the end of a shutdown reserved for HTTP requests.
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

/// Handle of a hub, for sends from outside of its methods.
#[derive(Clone)]
pub struct HubHandle {
    core: Arc<HubCore>,
}

impl ServerHandle {
    pub(super) fn new(core: Arc<ServerCore>) -> Self {
        Self { core }
    }

    /// Returns the hub with this name or path: `news` or `/news`. Hubs are found once they are added to the server. So
    /// a hub that sends to another hub keeps the server's handle in its state, and looks up the other hub when sending:
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
    /// If the server has no such hub.
    pub fn hub(&self, name: &str) -> Result<HubHandle, UnknownHub> {
        let hub = self.core.hub(&self.core.name_of(name)).ok_or_else(|| UnknownHub(name.to_owned()))?;
        Ok(HubHandle { core: Arc::clone(&hub.core) })
    }

    /// Core of the hub at this path, if only proxies serve its clients.
    pub(super) fn hub_of_proxies(&self, path: &str) -> Option<Arc<HubCore>> {
        let is_served_here = self.core.pools.get().is_some();
        #[cfg(feature = "embedded")]
        let is_served_here = is_served_here || self.core.embedded.get().is_some();
        let name = read_lock(&self.core.names).get(&path.to_lowercase()).cloned().filter(|_| !is_served_here)?;
        Some(Arc::clone(&self.core.hub(&name)?.core))
    }

    /// Returns the raw endpoint with this name or path.
    ///
    /// # Errors
    /// If the server has no such raw endpoint.
    pub fn raw(&self, name: &str) -> Result<RawHandle, UnknownHub> {
        let endpoint = self.core.raw(&self.core.name_of(name)).ok_or_else(|| UnknownHub(name.to_owned()))?;
        Ok(RawHandle { core: Arc::clone(&endpoint.core) })
    }

    /// Waits until at least one proxy is linked, and each linked proxy has a link to all hubs. Before that, about 100
    /// ms after a start, sends reach no client. Returns immediately without hubs.
    ///
    /// Proxies that have not connected yet are unknown. Messages to several receivers in the first 4 s after the first
    /// link also reach proxies that connect later.
    pub async fn linked(&self) {
        let hubs = self.core.hubs();
        loop {
            let mut changes: Vec<_> = hubs.iter().map(|hub| hub.core.outbound.link_changes()).collect();
            let linked: Vec<BTreeSet<_>> = hubs.iter().map(|hub| hub.core.outbound.peer_names()).collect();
            let is_linked = linked.iter().all(|ends| !ends.is_empty() && Some(ends) == linked.first());
            if is_linked {
                return;
            }
            // The senders live as long as the hubs.
            let _ = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed()))).await;
        }
    }

    pub(crate) fn keys(&self) -> Option<&AccessKeys> {
        self.core.access.get().map(|access| &access.keys)
    }

    /// Random id of this process, as sent to proxies.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.core.instance
    }

    /// Address of the [admin port](crate::Server::admin), once the router is created; `None` if the app has none.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn admin_addr(&self) -> Option<std::net::SocketAddr> {
        self.core.embedded.get()?.admin()
    }

    #[cfg(feature = "embedded")]
    pub(super) fn node(&self) -> Option<&trunkline_proxy::Embedded> {
        self.core.embedded.get()
    }

    /// Returns whether the development key is used, because no access key was given: then listen on loopback only.
    /// Available once the router is created.
    #[must_use]
    pub fn uses_development_key(&self) -> bool {
        self.core.is_development()
    }

    /// Creates an access token for a user, like `trunkline token user`. It is signed with the first access key of the
    /// server, so all proxies of the fleet and the extractor [`User`] accept it.
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

    /// Verifies an access token with the access keys of the server. For HTTP requests, use the extractor [`User`].
    ///
    /// # Errors
    /// If the token is invalid or has no user, and before [`Server::into_router`](crate::Server::into_router) was
    /// called.
    pub fn verify(&self, token: &str) -> Result<User, TokenError> {
        self.core.verify(token)
    }

    /// Returns a route for `/metrics` in the Prometheus text format. Metrics of the app start with `trunkline_app_`,
    /// metrics of the process with `process_`. The [app's registry](crate::Server::metrics_registry) is included.
    #[must_use = "a route does nothing until it is added to a router"]
    pub fn metrics<S: Clone + Send + Sync + 'static>(&self) -> MethodRouter<S> {
        let handle = self.clone();
        get(move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.metrics_text()) })
    }

    /// Returns the text served by [`metrics`](Self::metrics).
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.core.metrics.text()
    }

    /// Drains the server. Another app server takes over each proxied client once its running methods have completed, at
    /// most after 10 s ([`Server::shutdown_timeout`](crate::Server::shutdown_timeout)). Pending client results and
    /// uploads also complete first: until then, the client's further calls run here. At the timeout, waits for clients
    /// fail with [`InvokeError::Leaving`](crate::InvokeError::Leaving). Clients don't notice the move;
    /// [`Hub::on_leaving`](crate::Hub::on_leaving) and [`Hub::on_rehomed`](crate::Hub::on_rehomed) run instead of
    /// `on_disconnected` and `on_connected`. Without another app server, the proxy holds the client for a while.
    ///
    /// Then all links are closed, after their proxies have acknowledged all queued messages. Remaining clients, such as
    /// clients of raw endpoints that are not [movable](crate::RawEndpoint::movable), are disconnected. Clients without
    /// a proxy are asked to reconnect first, and have up to 5 s to disconnect.
    ///
    /// The total duration is at most the shutdown timeout plus 4 s. Methods and hooks still running by then are left
    /// running.
    ///
    /// [`trunkline::serve`](crate::serve()) calls it. Otherwise call it in axum's graceful shutdown, which does not
    /// include links:
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
            tracing::warn!(tasks, "shutdown continues while methods or hooks are still running");
        }
    }

    pub(super) fn stop_deadline(&self) -> Instant {
        self.core.stop_deadline(Instant::now())
    }
}

impl HubHandle {
    /// Returns the clients of this hub, for sends.
    #[must_use]
    pub fn clients(&self) -> Clients {
        Clients::new(&self.core)
    }

    /// Returns the groups of this hub, for membership changes.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(&self.core)
    }

    /// Returns the users of this hub, for presence queries.
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(&self.core)
    }

    /// Waits until a proxy is linked: from then on, messages to several receivers reach it, and proxies that connect
    /// within the next 4 s. Before that, about 100 ms after a start, sends reach no client.
    ///
    /// ```
    /// # async fn f(news: trunkline::HubHandle) -> Result<(), trunkline::SendError> {
    /// news.linked().await;
    /// news.clients().all().send("Back", ()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// An embedded node counts as a proxy, and so does a [dialled](crate::Server::dial) service. Links may be lost
    /// later: [`proxies`](Self::proxies) returns the current number.
    pub async fn linked(&self) {
        self.core.outbound.linked().await;
    }

    /// Number of linked proxies, equal to the number at which a send to several receivers is queued
    /// ([`Sent::proxies`](crate::Sent::proxies)). A proxy with interrupted links counts while the links may resume.
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

brief_debug!(ServerHandle, |it| { instance: it.instance() });

brief_debug!(HubHandle, |it| "HubHandle({})", it.name());
