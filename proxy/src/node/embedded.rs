//! A node inside an app: the same shard, transports and delivery, without a listener, an admin port or flags.
//!
//! It serves its own app alone: several such apps don't see each other's clients. For that put proxies in front; the
//! hubs stay as they are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::manifest::Manifest;

use super::{LEAVING_POLL, thread, upstream};
use crate::config::Settings;
use crate::delivery::Order;
use crate::endpoint::Endpoint;
use crate::link::{MemoryDialler, Reach};
use crate::shard::{ShardSender, Shared};

/// How long clients may take to leave when the app stops.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(5);

/// A running node inside an app.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
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
        drop(thread::start(0, shared.clone(), None, inbox, stop.clone())?);
        // A link in memory can't meet another instance, so nobody has to listen.
        let changed = Arc::new(Notify::new());
        upstream::open_pools(&shared, Reach::Memory(dialler), manifest, &changed);
        Ok(Self { shared, inbox: sender, stop })
    }

    /// Negotiate and connect of all hubs, to be merged into the app's router. Paths match exactly here.
    pub fn router(&self) -> Router {
        let endpoint = Endpoint::new(self.shared.clone(), self.shared.counters_of(0), self.inbox.clone());
        let hubs = self.shared.hubs.all();
        endpoint.into_routes(hubs.iter().map(|hub| hub.settings().path.clone()))
    }

    /// Stops the node: clients are told to connect again, and the app learns that they left.
    pub async fn stop(&self) {
        self.shared.drain();
        self.inbox.give(vec![Order::Drain], 0).await;
        let left = async {
            while self.shared.sockets() > 0 {
                sleep(LEAVING_POLL).await;
            }
        };
        drop(timeout(LEAVING_TIMEOUT, left).await);
        self.stop.cancel();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
