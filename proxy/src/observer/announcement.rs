//! Announcements: an operator's message to the clients of a hub, at all nodes of the fleet.
//!
//! ```text
//!  announcement ──► one invocation, in both hub protocols ─┬─► shards of this node ──────────────► number of receivers
//!                                                          └─► nodes that may have receivers ────► ack of each
//! ```
//!
//! The receivers of a node are counted by its shards when they deliver: both are commands of one batch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tracing::info;
use trunkline_protocol::hub::PayloadError;
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::manifest::EndpointKind;
use trunkline_protocol::service::{BroadcastData, GroupBroadcastData, Payloads, ServiceMessage, UserData};

use crate::fleet::{Fleet, FleetDelivery, FleetEntry};

/// Announcements under way at a time. One that waits for a silent node takes some seconds.
const UNDER_WAY_MAX: usize = 32;

/// Message of an operator to clients of one hub.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) hub: String,
    pub(crate) to: Announcees,
    /// Method that is invoked at the clients.
    pub(crate) target: String,
    pub(crate) arguments: Vec<JsonText>,
}

/// Receivers of an announcement within its hub.
#[derive(Debug)]
pub(crate) enum Announcees {
    Everyone,
    Group(String),
    User(String),
}

/// Outcome of an announcement.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnnouncementReport {
    /// Nodes that have given it to their receivers, this one included; a node without receivers counts, too.
    pub nodes: u64,
    /// Names of the nodes that did not answer.
    pub missing: Vec<String>,
    /// Clients that it was given to.
    pub clients: u64,
}

/// Reason why nothing was announced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnouncementError {
    #[error("no node that answers has this hub")]
    UnknownHub,
    #[error("is a raw endpoint: its clients speak no hub protocol, so there is nothing to invoke")]
    RawEndpoint,
    #[error("can't be written in a hub protocol: {0}")]
    Arguments(#[from] PayloadError),
    #[error("{UNDER_WAY_MAX} announcements are under way, and no more can be")]
    TooMany,
    #[error("this node is stopping")]
    Stopping,
}

/// Announcer of this node; its clones are one. Announcements arrive in the order in which they begin.
#[derive(Debug, Clone)]
pub(super) struct Announcer(Arc<AnnouncerState>);

#[derive(Debug)]
struct AnnouncerState {
    fleet: FleetEntry,
    under_way: Arc<Semaphore>,
    /// Turn of the announcement that is given to shards and nodes; the next one follows it everywhere.
    turn: AsyncMutex<()>,
}

impl Announcer {
    pub(super) fn new(fleet: Fleet) -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self(Arc::new(AnnouncerState { fleet: FleetEntry::of(&fleet), under_way, turn: AsyncMutex::default() }))
    }

    /// Gives an announcement to its receivers at all nodes.
    ///
    /// # Errors
    /// When nobody has received it.
    pub(super) async fn announce(&self, announcement: Announcement) -> Result<AnnouncementReport, AnnouncementError> {
        let permit = self.0.under_way.clone().try_acquire_owned().map_err(|_| AnnouncementError::TooMany)?;
        let announcer = self.0.clone();
        // In a task of its own: a caller that goes away leaves nothing announced by half.
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
        let message = announcement.message()?;
        let turn = self.turn.lock().await;
        let delivery = self.fleet.begin_delivery(&hub, message).await;
        drop(turn);
        let FleetDelivery { nodes, missing, clients, is_known } = delivery.await;
        // A node that has not answered may have it.
        if !is_known && missing.is_empty() {
            return Err(AnnouncementError::UnknownHub);
        }
        let (hub, method) = (&announcement.hub, &announcement.target);
        let silent = (!missing.is_empty()).then(|| missing.join(", "));
        info!(hub, method, clients, nodes, missing = silent, "an operator has announced something");
        Ok(AnnouncementReport { nodes, missing, clients })
    }
}

impl Announcement {
    /// Builds the service message, as an app server would send it.
    fn message(&self) -> Result<ServiceMessage, PayloadError> {
        let payloads = Payloads::invocation(None, &self.target, &self.arguments)?;
        Ok(match &self.to {
            Announcees::Everyone => ServiceMessage::BroadcastData(BroadcastData { excluded: Vec::new(), payloads }),
            Announcees::Group(group) => {
                let group = group.as_str().into();
                ServiceMessage::GroupBroadcastData(GroupBroadcastData { group, payloads, ..Default::default() })
            }
            Announcees::User(user) => ServiceMessage::UserData(UserData { user_id: user.as_str().into(), payloads }),
        })
    }
}
