//! A node inside an app: the same shard, transports and delivery, without a listener, an admin port or flags.
//!
//! It serves its own app alone: several such apps don't see each other's clients. For that put proxies in front; the
//! hubs stay as they are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::manifest::Manifest;

use super::{LEAVING_POLL, LINKS_TIMEOUT, thread, upstream};
use crate::config::Settings;
use crate::frontend::Endpoint;
use crate::shard::delivery::Order;
use crate::shard::{ShardSender, Shared};
use crate::upstream::{AppTarget, MemoryDialler, Pool};

/// How long clients may take to leave when the app stops.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first requests wait for the first links, which are opened while the app starts.
const STARTING_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a request looks whether the links are open.
const STARTING_POLL: Duration = Duration::from_millis(2);

/// A running node inside an app.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    pools: Vec<Arc<Pool>>,
    inbox: ShardSender,
    stop: CancellationToken,
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
        drop(thread::start(0, shared.clone(), Vec::new(), inbox, stop.clone())?);
        // A link in memory can't meet another instance, so nobody has to listen.
        let changed = Arc::new(Notify::new());
        let pools = upstream::open_pools(&shared, AppTarget::Memory(dialler), manifest, &changed);
        Ok(Self { shared, pools, inbox: sender, stop })
    }

    /// Negotiate and connect of all hubs, to be merged into the app's router. Case counts in paths here, because they
    /// are the router's.
    pub fn router(&self) -> Router {
        let endpoint = Endpoint::new(self.shared.clone(), self.shared.counters_of(0), self.inbox.clone());
        let hubs = self.shared.hubs.all();
        let routes = endpoint.into_routes(hubs.iter().map(|hub| hub.settings().path.clone()));
        routes.layer(middleware::from_fn_with_state(self.shared.clone(), started))
    }

    /// Stops the node: clients are told to connect again, and the app learns that they left.
    pub async fn stop(&self) {
        self.shared.drain();
        self.inbox.give(vec![Order::Drain(Duration::ZERO)], 0).await;
        drop(timeout(LEAVING_TIMEOUT, until(|| self.shared.sockets() == 0)).await);
        self.pools.iter().for_each(|pool| pool.retire());
        drop(timeout(LINKS_TIMEOUT, until(|| self.pools.iter().all(|pool| pool.open() == 0))).await);
        self.stop.cancel();
    }
}

async fn until(is_done: impl Fn() -> bool) {
    while !is_done() {
        sleep(LEAVING_POLL).await;
    }
}

/// Lets requests wait for the links at the start: who starts an app in one line and connects in the next expects to
/// be served.
async fn started(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let is_started = || shared.is_draining() || shared.hubs.all().iter().all(|hub| hub.is_served());
    if !is_started() {
        let starting = async {
            while !is_started() {
                sleep(STARTING_POLL).await;
            }
        };
        drop(timeout(STARTING_TIMEOUT, starting).await);
    }
    next.run(request).await
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
