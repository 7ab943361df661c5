//! Embedded node: shard, transports and delivery inside an app, without a listener or flags; with an admin port if the
//! app wants one.
//!
//! It serves its own app only: several such apps don't see each other's clients. For that put proxies in front; the
//! hubs stay as they are.

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

use super::graceful_stop::{close_links, poll_until};
use super::shard_thread;
use super::upstream_watcher::open_pools;
use crate::admin;
use crate::auth::AdminToken;
use crate::config::{AdminSettings, Settings};
use crate::fleet::Fleet;
use crate::frontend::Endpoint;
use crate::net::socket::RequestSocket;
use crate::observer::Readiness;
use crate::shard::{AppSocket, ShardCommand, ShardMessage, ShardSender, Shared};
use crate::upstream::{AppTarget, MemoryDialler, Pool};

/// Time that clients have to disconnect when the app stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that the first requests wait for the first links, which are opened while the app starts.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval at which a request checks whether the links are open.
const START_POLL: Duration = Duration::from_millis(2);

/// Most sockets that wait for the app to take them; more wait for their turn.
const WAITING_SOCKETS_MAX: usize = 64;

/// A running embedded node.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    pools: Vec<Arc<Pool>>,
    inbox: ShardSender,
    stop: CancellationToken,
    admin: OnceLock<AdminServer>,
}

/// Listener of an app that its node shares: `axum::serve` gets what brings no WebSocket connect to a hub.
#[derive(Debug)]
pub struct AppListener {
    shared: Arc<Shared>,
    inbox: ShardSender,
    /// Message that begins it.
    unserved: Option<ShardMessage>,
    sockets: mpsc::Receiver<AppSocket>,
    address: SocketAddr,
}

/// Admin port that is served.
#[derive(Debug)]
struct AdminServer {
    address: SocketAddr,
    serving: AbortHandle,
}

impl Embedded {
    /// Starts the node's thread and its links to the app.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(settings: Settings, manifest: Manifest, dialler: Arc<dyn MemoryDialler>) -> io::Result<Self> {
        let (sender, inbox) = ShardSender::new();
        let shared = Shared::embedded(settings, sender.clone());
        let stop = CancellationToken::new();
        drop(shard_thread::start(0, (shared.clone(), None), Vec::new(), inbox, stop.clone())?);
        // A link in memory can't reach another instance, so nothing waits for changes.
        let changed = Arc::new(Notify::new());
        let pools =
            open_pools(&shared, (AppTarget::Memory(dialler), &shared.hubs.groups().default_one()), manifest, &changed);
        Ok(Self { shared, pools, inbox: sender, stop, admin: OnceLock::new() })
    }

    /// Serves the admin port on a listener, once: health, metrics, the observer page and its API, guarded as those of a
    /// node of its own. Needs a runtime, which is to serve it.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn serve_admin(&self, listener: std::net::TcpListener, token: Option<AdminToken>) -> io::Result<SocketAddr> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let settings = AdminSettings { token: token.map(Into::into), ..AdminSettings::default() };
        let readiness = Readiness::new(self.shared.clone(), Arc::default());
        let fleet = Fleet::new(self.shared.clone(), address);
        let serving =
            async move { admin::serve(listener, address, readiness, &settings, (fleet, None), Arc::default()).await };
        let serving = tokio::spawn(serving).abort_handle();
        if let Err(second) = self.admin.set(AdminServer { address, serving }) {
            second.serving.abort();
        }
        Ok(address)
    }

    /// Returns the address of the admin port, if there is one.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        Some(self.admin.get()?.address)
    }

    /// Shares a listener with the app: from the first `accept` on, the node takes sockets that bring a WebSocket
    /// connect to a hub, and the app gets the others.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn listen(&self, listener: TcpListener) -> io::Result<AppListener> {
        let (address, (sender, sockets)) = (listener.local_addr()?, mpsc::channel(WAITING_SOCKETS_MAX));
        let unserved = Some(ShardMessage::Listen(listener.into_std()?, sender));
        Ok(AppListener { shared: self.shared.clone(), inbox: self.inbox.clone(), unserved, sockets, address })
    }

    /// Returns the negotiate and connect routes of all hubs, for the app's router. Case counts in their paths, as in
    /// all of the router's.
    pub fn router(&self) -> Router {
        let endpoint = Endpoint::new(self.shared.clone(), self.shared.counters_of(0), self.inbox.clone());
        // A node inside an app is a fleet of its own, which needs no address.
        let endpoint = Arc::new(endpoint.with_fleet(&Fleet::new(self.shared.clone(), ([127, 0, 0, 1], 0).into())));
        let hubs = self.shared.hubs.all();
        let routes = endpoint.into_routes(hubs.iter().map(|hub| hub.settings().path.clone()));
        routes.layer(middleware::from_fn_with_state(self.shared.clone(), await_links))
    }

    /// Stops the node within this time: clients are told to connect again, and the app learns that they left.
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

    /// Ends its thread and its admin port.
    fn end(&self) {
        if let Some(admin) = self.admin.get() {
            admin.serving.abort();
        }
        self.stop.cancel();
    }
}

/// Middleware that lets requests wait for the first links, as the node's listener does: code that starts an app in one
/// line and connects in the next expects to be served.
async fn await_links(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    links_open(&shared).await;
    next.run(request).await
}

/// Waits for the first links, for as long as a start takes.
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
            // Without its node there is nobody who accepts, but those who are here are served.
            let Some(AppSocket { stream, peer, early }) = self.sockets.recv().await else { return pending().await };
            match TcpStream::from_std(stream) {
                Ok(stream) => return (RequestSocket::continued(stream, early), peer),
                Err(error) => debug!(%peer, %error, "a socket of the app can't be served"),
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
