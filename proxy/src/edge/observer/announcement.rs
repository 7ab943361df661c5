//! Announcements: messages from an operator to the clients of a hub, at all nodes of the fleet.
//!
//! ```text
//!  announcement ──► one invocation, in both hub protocols ─┬─► shards of this node ──────────────► number of receivers
//!                                                          └─► nodes that may have receivers ────► ack of each
//! ```
//!
//! Shards count the receivers as they deliver; both commands belong to one batch.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;
use tracing::info;
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::manifest::EndpointKind;
use trunkline_protocol::service::Payloads;

use super::act::{ActLimit, silent};
use super::api_error::ApiError;
use crate::edge::rest::{Addressee, begin_send, to_clients};
use crate::fleet::{Fleet, FleetDelivery, FleetEntry};

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

/// Announcer of this node; clones share it. Announcements are delivered in starting order.
#[derive(Debug, Clone)]
pub(crate) struct Announcer(Arc<AnnouncerState>);

#[derive(Debug)]
struct AnnouncerState {
    fleet: FleetEntry,
    acts: ActLimit,
    /// Held while an announcement is queued to shards and nodes, so that the order is the same everywhere.
    turn: AsyncMutex<()>,
}

impl Announcer {
    pub(super) fn new(fleet: Fleet) -> Self {
        let (fleet, acts) = (FleetEntry::from_fleet(&fleet), ActLimit::new("announcements"));
        Self(Arc::new(AnnouncerState { fleet, acts, turn: AsyncMutex::default() }))
    }

    /// Sends an announcement to its receivers at all nodes. Fails if it was not delivered at all.
    pub(crate) async fn announce(&self, announcement: Announcement) -> Result<AnnouncementReport, ApiError> {
        let AnnouncerState { fleet, acts, turn } = &*self.0;
        let _permit = acts.take()?;
        let hub = fleet.hub_named(&announcement.hub);
        if hub.here().is_some_and(|hub| hub.settings().kind == EndpointKind::Raw) {
            let problem = "is a raw endpoint: its clients use no hub protocol, so they have no methods";
            return Err(ApiError::field("hub", problem));
        }
        let payloads = Payloads::invocation(None, &announcement.target, &announcement.arguments)
            .map_err(|error| ApiError::field("arguments", format!("can't be written in a hub protocol: {error}")))?;
        let message = to_clients(announcement.to.clone(), payloads, Vec::new());
        let turn = turn.lock().await;
        let delivery = begin_send(fleet, &hub, &announcement.to, None, message).await;
        drop(turn);
        let delivery = delivery.await.map_err(|error| ApiError::new(StatusCode::CONFLICT, error.to_string()))?;
        let FleetDelivery { nodes, missing, clients, is_known, .. } = delivery;
        // A node without an answer may have the hub.
        if !is_known && missing.is_empty() {
            return Err(ApiError::unknown_hub(Some(&announcement.hub)));
        }
        if let (Addressee::Connection(id), 0, true) = (&announcement.to, clients, missing.is_empty()) {
            return Err(ApiError::unknown_client(id));
        }
        let (hub, method) = (&announcement.hub, &announcement.target);
        info!(hub, method, clients, nodes, missing = silent(&missing), "announcement of an operator sent");
        Ok(AnnouncementReport { nodes, missing, clients })
    }
}
