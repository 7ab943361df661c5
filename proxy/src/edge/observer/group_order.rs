//! Changes of groups by an operator: a client, or the connections of a user, join or leave a group.
//!
//! ```text
//!  order ──► the question of the REST data plane ─┬─► shards of this node ───────────────► ack
//!                                                 └─► nodes with the client or the user ─► ack of each
//! ```

use serde::Serialize;
use tracing::info;
use trunkline_protocol::service::AckStatus;

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

#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupOrderError {
    #[error("no reachable node has this hub")]
    UnknownHub,
    #[error("no reachable node has this client connection")]
    UnknownClient(String),
    #[error("no reachable node has a connection of this user at this hub")]
    UnknownUser,
    #[error("has {0} bytes, but at most {1} are allowed: see --group-name-max-bytes")]
    NameTooLong(usize, usize),
    #[error("these nodes gave no answer: {}", .0.join(", "))]
    NoAnswer(Vec<String>),
    #[error("refused: {0}")]
    Refused(String),
}

/// Changes groups for operators; clones share the fleet.
#[derive(Debug, Clone)]
pub(crate) struct GroupEditor {
    fleet: FleetEntry,
    name_max_bytes: usize,
}

impl GroupEditor {
    pub(super) fn new(fleet: &Fleet, name_max_bytes: usize) -> Self {
        Self { fleet: FleetEntry::from_fleet(fleet), name_max_bytes }
    }

    /// Adds a client or the connections of a user to a group, or removes them, at all nodes. Fails if no answering node
    /// has the client, or if a node refuses or gives no answer.
    pub(crate) async fn change(&self, order: GroupOrder) -> Result<GroupReport, GroupOrderError> {
        if order.group.len() > self.name_max_bytes {
            return Err(GroupOrderError::NameTooLong(order.group.len(), self.name_max_bytes));
        }
        let hub = self.fleet.hub_named(&order.hub);
        if hub.here().is_none() && !self.fleet.has_others() {
            return Err(GroupOrderError::UnknownHub);
        }
        let message = match order.step {
            GroupStep::Join => join_order(&order.subject, order.group.clone()),
            GroupStep::Leave => leave_order(&order.subject, order.group.clone()),
        };
        let FleetAnswer { ack, missing, .. } = self.fleet.ask_fleet(&hub, message).await;
        match (ack.status, order.subject) {
            // Leaving also ends memberships of a user without connections.
            (AckStatus::Ok, _) => {}
            (AckStatus::NotFound, Addressee::User(_)) if order.step == GroupStep::Leave => {}
            (AckStatus::NotFound, Addressee::User(_)) => return Err(GroupOrderError::UnknownUser),
            (AckStatus::NotFound, Addressee::Connection(id)) => return Err(GroupOrderError::UnknownClient(id)),
            (AckStatus::Timeout, _) => return Err(GroupOrderError::NoAnswer(missing)),
            _ => return Err(GroupOrderError::Refused(ack.message.unwrap_or_default().to_string())),
        }
        let (hub, group, step) = (order.hub, order.group, order.step);
        info!(hub, group, ?step, "group changed by an operator");
        Ok(GroupReport { hub, group, missing })
    }
}
