//! Changes of groups by an operator: a client, or the connections of a user, join or leave a group.
//!
//! ```text
//!  order ──► the question of the REST data plane ─┬─► shards of this node ───────────────► ack
//!                                                 └─► nodes with the client or the user ─► ack of each
//! ```

use axum::http::StatusCode;
use serde::Serialize;
use tracing::info;
use trunkline_protocol::service::AckStatus;

use super::act::{ActLimit, hub_of_order};
use super::api_error::ApiError;
use crate::edge::rest::{Addressee, join_order, leave_order};
use crate::fleet::{Fleet, FleetAnswer, FleetEntry};

#[derive(Debug)]
pub(crate) struct GroupOrder {
    pub(crate) hub: String,
    pub(crate) group: String,
    /// A connection or a user; the API creates no other kind. For a user the order applies to current connections, and
    /// leaving also ends memberships of future ones.
    pub(crate) subject: Addressee,
    pub(crate) step: GroupStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupStep {
    Join,
    Leave,
}

/// Result of a change.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct GroupReport {
    pub(crate) hub: String,
    pub(crate) group: String,
    /// Names of nodes without an answer.
    pub(crate) missing: Vec<String>,
}

/// Changes groups for operators; clones share the fleet.
#[derive(Debug, Clone)]
pub(crate) struct GroupEditor {
    fleet: FleetEntry,
    name_max_bytes: usize,
    acts: ActLimit,
}

impl GroupEditor {
    pub(super) fn new(fleet: &Fleet, name_max_bytes: usize) -> Self {
        Self { fleet: FleetEntry::from_fleet(fleet), name_max_bytes, acts: ActLimit::new("changes of groups") }
    }

    /// Adds a client or the connections of a user to a group, or removes them, at all nodes. Fails if no answering node
    /// has the client, or if a node refuses or gives no answer.
    pub(crate) async fn change(&self, order: GroupOrder) -> Result<GroupReport, ApiError> {
        let _permit = self.acts.take()?;
        let (bytes, most) = (order.group.len(), self.name_max_bytes);
        if bytes > most {
            let problem = format!("has {bytes} bytes, but at most {most} are allowed: see --group-name-max-bytes");
            return Err(ApiError::field("group", problem));
        }
        let hub = hub_of_order(&self.fleet, &order.hub)?;
        let message = match order.step {
            GroupStep::Join => join_order(&order.subject, order.group.clone()),
            GroupStep::Leave => leave_order(&order.subject, order.group.clone()),
        };
        let FleetAnswer { ack, missing, .. } = self.fleet.ask_fleet(&hub, message).await;
        match (ack.status, order.subject) {
            // Leaving also ends memberships of a user without connections.
            (AckStatus::Ok, _) => {}
            (AckStatus::NotFound, Addressee::User(_)) if order.step == GroupStep::Leave => {}
            (AckStatus::NotFound, Addressee::User(_)) => {
                let text = "no reachable node has a connection of this user at this hub";
                return Err(ApiError::new(StatusCode::NOT_FOUND, text));
            }
            (AckStatus::NotFound, Addressee::Connection(id)) => return Err(ApiError::unknown_client(&id)),
            (AckStatus::Timeout, _) => {
                let text = format!("these nodes gave no answer: {}", missing.join(", "));
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
            }
            _ => {
                let text = format!("refused: {}", ack.message.unwrap_or_default());
                return Err(ApiError::new(StatusCode::CONFLICT, text));
            }
        }
        let (hub, group, step) = (order.hub, order.group, order.step);
        info!(hub, group, ?step, "group changed by an operator");
        Ok(GroupReport { hub, group, missing })
    }
}
