//! What the observer is told: of this node by its shards and counters, of the others by their own admin ports.
//!
//! ```text
//!  page, top, curl ──► fleet ─┬─► node: counters, and shards in short steps
//!                             └─► peers: the same question with scope=node
//! ```
//!
//! Nothing is gathered while nobody looks, and what was gathered a moment ago is told to all who ask.

mod desk;
mod fleet;
mod listing;
mod node;
mod past;
mod peers;
mod view;
mod vitals;
mod watching;

use std::sync::Arc;

use tokio::sync::Semaphore;
use trunkline_protocol::id::random_id;

use super::Admin;
use crate::config::Resolver;

use desk::Desk;
use node::Gatherer;
use peers::Peers;

pub(super) use listing::{Listing, NamePage, Page};
pub(crate) use view::{Client, Fleet, Node};
#[cfg(test)]
pub(crate) use view::{HubView, LinkView};
#[cfg(feature = "cli")]
pub(crate) use view::{Rates, Unreachable};
pub(super) use watching::WatchProblem;

/// Streams of events that a node keeps open at a time.
pub(super) const STREAMS_MAX: usize = 32;

/// Questions that are worked on at a time: the rest waits.
const QUESTIONS_MAX: usize = 8;

/// Answers what the observer asks.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    admin: Admin,
    peers: Arc<Peers>,
    node: Desk<Node>,
    fleet: Desk<Fleet>,
    streams: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

impl Observer {
    /// One that knows this node and, through it, its peers. Has to be made where there is a runtime.
    #[must_use]
    pub(super) fn new(admin: Admin) -> Self {
        let peers = Arc::new(Peers::new(&admin.settings, Resolver::default(), admin.shared.connector.clone()));
        let gatherer = Gatherer::new(admin.clone(), random_id());
        let node = Desk::open(gatherer, |gatherer| Box::pin(gatherer.gather()));
        let fleet = Desk::open((node.clone(), peers.clone()), |(node, peers)| Box::pin(fleet::gather(node, peers)));
        let (streams, questions) = (Semaphore::new(STREAMS_MAX), Semaphore::new(QUESTIONS_MAX));
        Self { admin, peers, node, fleet, streams: Arc::new(streams), questions: Arc::new(questions) }
    }

    /// This node, as it is now.
    pub(super) async fn node(&self) -> Option<Arc<Node>> {
        self.node.ask().await
    }

    /// This node and its peers, as they are now.
    pub(super) async fn fleet(&self) -> Option<Arc<Fleet>> {
        self.fleet.ask().await
    }

    #[must_use]
    pub(super) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// A place for a stream of events; `None` when there are too many.
    #[must_use]
    pub(super) fn stream(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
