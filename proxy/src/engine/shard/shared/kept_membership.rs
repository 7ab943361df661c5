//! Time-limited memberships of users in groups, as the engine queries them: new connections of a user join those
//! groups, current ones leave them at their end.
//!
//! The memberships are in a layer above, which implements [`KeptMemberships`].

use std::fmt;

use bytestring::ByteString;
use trunkline_protocol::service::ServiceMessage;

/// Default and maximum lifetime of a membership in seconds: one year, as in Azure's service.
pub(crate) const MEMBERSHIP_S: i64 = 365 * 24 * 3600;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpiredMembership {
    /// Fleet-wide name of the hub.
    pub(crate) hub: ByteString,
    pub(crate) user: ByteString,
    pub(crate) group: ByteString,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MembershipRefused {
    #[error("a node stores at most {0}: see --rest-user-groups-max")]
    TooMany(String),
    #[error(
        "a node stores at most {0} bytes of memberships of users, half of it per hub, and per app key as \
         much as is free: see --rest-user-groups-max-bytes"
    )]
    TooLarge(usize),
    #[error("the user id has {length} characters, but at most {limit} are allowed")]
    UserTooLong { length: usize, limit: usize },
    #[error("the group name has {length} bytes, but at most {limit} are allowed: see --group-name-max-bytes")]
    GroupTooLong { length: usize, limit: usize },
}

/// Queried when a client connects, once a second, and for messages about memberships.
pub(crate) trait KeptMemberships: fmt::Debug + Send + Sync {
    /// Whether there are no memberships. Checked first for each new connection.
    fn is_empty(&self) -> bool;

    /// Groups of a user in a hub, given its fleet-wide name.
    fn of(&self, hub: &str, user: &str) -> Vec<ByteString>;

    /// Stores or removes a user's memberships as requested by a message; other messages have no effect. Fails if too
    /// many are stored.
    fn note(&self, hub: &str, message: &ServiceMessage) -> Result<(), MembershipRefused>;

    /// Removes the expired memberships, and returns them.
    fn take_expired(&self) -> Vec<ExpiredMembership>;
}

impl dyn KeptMemberships {
    /// Whether a user is in a group, with or without connections.
    pub(crate) fn contain(&self, hub: &str, user: &str, group: &str) -> bool {
        !self.is_empty() && self.of(hub, user).iter().any(|kept| kept == group)
    }

    /// Whether a message may change stored memberships.
    pub(crate) fn are_changed_by(&self, message: &ServiceMessage) -> bool {
        let ends_some = matches!(message, ServiceMessage::UserLeaveGroup(_) | ServiceMessage::UserLeaveGroupWithAck(_));
        message.outlasts_connections() && !(ends_some && self.is_empty())
    }
}

/// Absence of memberships: none is stored.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct NoMemberships;

#[cfg(test)]
impl KeptMemberships for NoMemberships {
    fn is_empty(&self) -> bool {
        true
    }

    fn of(&self, _hub: &str, _user: &str) -> Vec<ByteString> {
        Vec::new()
    }

    fn note(&self, _hub: &str, _message: &ServiceMessage) -> Result<(), MembershipRefused> {
        Ok(())
    }

    fn take_expired(&self) -> Vec<ExpiredMembership> {
        Vec::new()
    }
}
