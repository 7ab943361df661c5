//! Announcements: messages from an operator to the clients of a hub, at all nodes of the fleet.
//!
//! ```text
//!  announcement ──► one invocation, in both hub protocols ─┬─► shards of this node ──────────────► number of receivers
//!                                                          └─► nodes that may have receivers ────► ack of each
//! ```
//!
//! Shards count the receivers as they deliver; both commands belong to one batch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tracing::info;
use trunkline_protocol::hub::PayloadError;
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::manifest::EndpointKind;
use trunkline_protocol::service::Payloads;

use crate::edge::rest::{Addressee, append, appended, set_of, to_clients};
use crate::fleet::{Fleet, FleetDelivery, FleetEntry};

/// Maximum number of concurrent announcements. A silent node delays one by some seconds.
const UNDER_WAY_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) hub: String,
    /// Receivers within the hub.
    pub(crate) to: Addressee,
    /// Client method to invoke.
    pub(crate) target: String,
    pub(crate) arguments: Vec<JsonText>,
}

/// Result of an announcement.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnnouncementReport {
    /// Nodes that delivered it, including this one and nodes without receivers.
    pub nodes: u64,
    /// Names of nodes without an answer.
    pub missing: Vec<String>,
    /// Number of receiving clients.
    pub clients: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnouncementError {
    #[error("no reachable node has this hub")]
    UnknownHub,
    #[error("no reachable node has this client connection")]
    UnknownClient(String),
    #[error("is a raw endpoint: its clients use no hub protocol, so they have no methods")]
    RawEndpoint,
    #[error("can't be written in a hub protocol: {0}")]
    Arguments(#[from] PayloadError),
    #[error("{UNDER_WAY_MAX} announcements are in progress, which is the limit")]
    TooMany,
    #[error("{0}")]
    Record(String),
    #[error("this node is stopping")]
    Stopping,
}

/// Announcer of this node; clones share it. Announcements are delivered in starting order.
#[derive(Debug, Clone)]
pub(crate) struct Announcer(Arc<AnnouncerState>);

#[derive(Debug)]
struct AnnouncerState {
    fleet: FleetEntry,
    under_way: Arc<Semaphore>,
    /// Held while an announcement is queued to shards and nodes, so that the order is the same everywhere.
    turn: AsyncMutex<()>,
}

impl Announcer {
    pub(super) fn new(fleet: Fleet) -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self(Arc::new(AnnouncerState { fleet: FleetEntry::from_fleet(&fleet), under_way, turn: AsyncMutex::default() }))
    }

    /// Sends an announcement to its receivers at all nodes. Fails if it was not delivered at all.
    pub(crate) async fn announce(&self, announcement: Announcement) -> Result<AnnouncementReport, AnnouncementError> {
        let permit = self.0.under_way.clone().try_acquire_owned().map_err(|_| AnnouncementError::TooMany)?;
        let announcer = self.0.clone();
        // Runs in its own task, so a disconnecting caller can't interrupt it halfway.
        let announcing = tokio::spawn(async move {
            let _permit = permit;
            announcer.announce(&announcement).await
        });
        announcing.await.unwrap_or(Err(AnnouncementError::Stopping))
    }
}

impl AnnouncerState {
    async fn announce(&self, announcement: &Announcement) -> Result<AnnouncementReport, AnnouncementError> {
        let hub = self.fleet.hub_named(&announcement.hub);
        if hub.here().is_some_and(|hub| hub.settings().kind == EndpointKind::Raw) {
            return Err(AnnouncementError::RawEndpoint);
        }
        let payloads = Payloads::invocation(None, &announcement.target, &announcement.arguments)?;
        let message = to_clients(announcement.to.clone(), payloads, Vec::new());
        let set = set_of(&announcement.to).filter(|set| self.fleet.history_of(&hub, set).is_some());
        let turn = self.turn.lock().await;
        let delivery = match set {
            Some(set) => {
                let appending = self.fleet.request_record(&hub, append(&set, None, &message));
                drop(turn);
                appended(&set, appending.await).map_err(|error| AnnouncementError::Record(error.to_string()))?
            }
            None => {
                let delivery = self.fleet.begin_delivery(&hub, message).await;
                drop(turn);
                delivery.await
            }
        };
        let FleetDelivery { nodes, missing, clients, is_known, .. } = delivery;
        // A node without an answer may have the hub.
        if !is_known && missing.is_empty() {
            return Err(AnnouncementError::UnknownHub);
        }
        if let (Addressee::Connection(id), 0, true) = (&announcement.to, clients, missing.is_empty()) {
            return Err(AnnouncementError::UnknownClient(id.clone()));
        }
        let (hub, method) = (&announcement.hub, &announcement.target);
        let silent = (!missing.is_empty()).then(|| missing.join(", "));
        info!(hub, method, clients, nodes, missing = silent, "announcement of an operator sent");
        Ok(AnnouncementReport { nodes, missing, clients })
    }
}
