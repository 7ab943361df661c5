//! Embedded node: shard, transports and delivery inside an app, without a listener or flags; with an optional admin
//! port.
//!
//! It serves only its own app's clients. For several apps that share clients, deploy proxies in front; the hubs stay
//! unchanged.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use trunkline_protocol::manifest::Manifest;

use super::condition_watch::{self, ConditionWatch};
use super::graceful_stop::{close_links, poll_until};
use super::shard_thread;
use super::upstream_watcher::open_pools;
use crate::edge::admin;
use crate::edge::frontend::Endpoint;
use crate::edge::observer::Readiness;
use crate::engine::shard::{AppSocket, ShardCommand, ShardMessage, ShardSender, Shared};
use crate::engine::upstream::{AppTarget, MemoryDialler, Pool};
use crate::features::webhook::Webhooks;
use crate::fleet::{Fleet, NodeStores};
use crate::ground::auth::AdminToken;
use crate::ground::config::{AdminSettings, Settings};
use crate::ground::net::socket::RequestSocket;

/// Time for clients to disconnect when the app stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the first requests wait for the first links, which open while the app starts.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// Poll interval of a request that waits for links.
const START_POLL: Duration = Duration::from_millis(2);

/// Maximum number of sockets queued for the app; further ones wait.
const WAITING_SOCKETS_MAX: usize = 64;

/// A running embedded node.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    stores: NodeStores,
    pools: Vec<Arc<Pool>>,
    inbox: ShardSender,
    stop: CancellationToken,
    admin: OnceLock<AdminServer>,
}

/// Listener shared by an app and its node: `axum::serve` gets all sockets except those with a WebSocket connect to a
/// hub.
#[derive(Debug)]
pub struct AppListener {
    shared: Arc<Shared>,
    inbox: ShardSender,
    unserved: Option<ShardMessage>,
    sockets: mpsc::Receiver<AppSocket>,
    address: SocketAddr,
}

#[derive(Debug)]
struct AdminServer {
    address: SocketAddr,
    serving: AbortHandle,
}

impl Embedded {
    /// Starts the node's thread and its links to the app.
    ///
    /// # Errors
    /// If a thread can't be created.
    pub fn start(settings: Settings, manifest: Manifest, dialler: Arc<dyn MemoryDialler>) -> io::Result<Self> {
        let (sender, inbox) = ShardSender::new();
        let stores = NodeStores::with_keys_alone(&settings);
        let shared = Shared::embedded(settings, stores.seams(), sender.clone());
        let stop = CancellationToken::new();
        drop(shard_thread::start(
            0,
            (shared.clone(), stores.admission.clone(), None),
            Vec::new(),
            inbox,
            stop.clone(),
        )?);
        // An in-memory link can't reach another instance, so changes need not be awaited.
        let changed = Arc::new(Notify::new());
        let pools =
            open_pools(&shared, (AppTarget::Memory(dialler), &shared.hubs.groups.default_one()), manifest, &changed);
        Ok(Self { shared, stores, pools, inbox: sender, stop, admin: OnceLock::new() })
    }

    /// Serves the admin port on a listener, once: health, metrics, the observer page and its API, guarded like a
    /// standalone node's. Needs a runtime, which serves the port and evaluates the conditions.
    ///
    /// # Errors
    /// If the listener is unusable.
    pub fn serve_admin(&self, listener: std::net::TcpListener, token: Option<AdminToken>) -> io::Result<SocketAddr> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let settings = AdminSettings { token: token.map(Into::into), ..AdminSettings::default() };
        let readiness = Readiness::new(self.shared.clone(), Arc::default());
        let fleet = Fleet::new(self.shared.clone(), self.stores.clone(), address);
        // The settings of an embedded node name none.
        let webhooks = Arc::new(Webhooks::new(&self.shared));
        let watch = ConditionWatch::new(self.shared.clone(), fleet.clone(), webhooks.clone(), Arc::default());
        let serving = async move {
            let admin = admin::serve(listener, address, readiness, &settings, (fleet, None, webhooks), Arc::default());
            tokio::join!(admin, condition_watch::run(watch, None))
        };
        let serving = tokio::spawn(serving).abort_handle();
        if let Err(second) = self.admin.set(AdminServer { address, serving }) {
            second.serving.abort();
        }
        Ok(address)
    }

    /// Address of the admin port, if served.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        Some(self.admin.get()?.address)
    }

    /// Shares a listener with the app. From the first `accept` on, the node takes sockets with a WebSocket connect to a
    /// hub, and the app gets the others.
    ///
    /// # Errors
    /// If the listener is unusable.
    pub fn listen(&self, listener: TcpListener) -> io::Result<AppListener> {
        let (address, (sender, sockets)) = (listener.local_addr()?, mpsc::channel(WAITING_SOCKETS_MAX));
        let unserved = Some(ShardMessage::Listen(listener.into_std()?, sender));
        Ok(AppListener { shared: self.shared.clone(), inbox: self.inbox.clone(), unserved, sockets, address })
    }

    /// Negotiate and connect routes of all hubs, for the app's router. Paths are case-sensitive, like all paths of the
    /// router.
    pub fn router(&self) -> Router {
        let (shared, stores) = (&self.shared, &self.stores);
        let endpoint =
            Endpoint::new(shared.clone(), stores.admission.clone(), shared.counters_of(0), self.inbox.clone());
        // An embedded node is a fleet of one and needs no address.
        let fleet = Fleet::new(shared.clone(), stores.clone(), ([127, 0, 0, 1], 0).into());
        let endpoint = Arc::new(endpoint.with_fleet(&fleet));
        let hubs = self.shared.hubs.all();
        let routes = endpoint.into_routes(hubs.iter().map(|hub| hub.settings().path.clone()));
        routes.layer(middleware::from_fn_with_state(self.shared.clone(), await_links))
    }

    /// Stops the node within this time: asks clients to reconnect and notifies the app.
    pub async fn stop(&self, within: Duration) {
        self.shared.refuse_clients();
        let stopping = async {
            self.inbox.give(vec![ShardCommand::Drain(Duration::ZERO)], 0).await;
            drop(timeout(DRAIN_TIMEOUT, poll_until(|| self.shared.sockets() == 0)).await);
            close_links(&self.pools).await;
        };
        drop(timeout(within, stopping).await);
        self.end();
    }

    fn end(&self) {
        if let Some(admin) = self.admin.get() {
            admin.serving.abort();
        }
        self.stop.cancel();
    }
}

/// Middleware that makes requests wait for the first links: code that starts an app and immediately connects expects to
/// be served.
async fn await_links(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    links_open(&shared).await;
    next.run(request).await
}

/// Waits for the first links, limited by the start timeout.
async fn links_open(shared: &Shared) {
    let are_open = || shared.refuses_clients() || shared.hubs.living().iter().all(|hub| hub.is_served());
    if !are_open() {
        let opening = async {
            while !are_open() {
                sleep(START_POLL).await;
            }
        };
        drop(timeout(START_TIMEOUT, opening).await);
    }
}

impl Listener for AppListener {
    type Io = RequestSocket<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        if self.unserved.is_some() {
            links_open(&self.shared).await;
            self.unserved.take().into_iter().for_each(|listen| self.inbox.put(listen));
        }
        loop {
            // After the end of the node, no sockets are accepted; queued ones are still served.
            let Some(AppSocket { stream, peer, early }) = self.sockets.recv().await else { return pending().await };
            match TcpStream::from_std(stream) {
                Ok(stream) => return (RequestSocket::continued(stream, early), peer),
                Err(error) => debug!(%peer, %error, "cannot serve a socket of the app"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end();
    }
}
