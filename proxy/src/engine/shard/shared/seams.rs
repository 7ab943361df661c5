//! State of layers above, as the engine queries it: access to hubs, memberships of users, records, and interest in
//! messages of other nodes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::fleet::Wanted;
use trunkline_protocol::service::{RecordReply, RecordRequest, ServiceMessage};

use crate::engine::upstream::HubIndex;
use crate::ground::auth::Signer;

/// State above the engine, which the engine queries through traits.
#[derive(Debug, Clone)]
pub(crate) struct Seams {
    pub access: Arc<dyn AccessRules>,
    pub user_groups: Arc<dyn KeptMemberships>,
    /// `None` for a node without peers.
    pub interest: Option<Arc<dyn SetInterest>>,
}

/// Position in the order of revocations of a node. A request takes a mark before its token is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RevocationMark(pub(crate) u64);

/// Reason to refuse the claims of a newer authentication for an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefreshRefused {
    #[error("the claims have {bytes} bytes, at most {max} are allowed: see --jwt-max-bytes")]
    TooLarge { bytes: usize, max: usize },
    #[error("the claims are of another user than the connection: only the same user can refresh it")]
    OtherUser,
    #[error("the log-in was issued before the claims in force: log in again for a newer one")]
    Older,
    #[error("the log-in was revoked: log in again")]
    Revoked,
}

/// Queried when clients connect, move or refresh, and for the share of a caller; never for a delivery.
///
/// Tokens, keys and revocations are in a layer above, which implements it.
pub(crate) trait AccessRules: fmt::Debug + Send + Sync {
    /// Whether apps have keys of their own, so that each has a share of the limits.
    fn has_apps(&self) -> bool;

    /// Owner of a hub, given its name.
    fn owner_of(&self, hub: &str) -> Signer;

    /// Whether tokens of a user were revoked after this mark.
    fn has_revoked_since(&self, mark: RevocationMark, user: Option<&str>) -> bool;

    /// Whether this node closed all connections of a user after another node opened one, because of a revocation. The
    /// other node may not have received the revocation yet.
    fn has_closed(&self, user: Option<&str>, opened_ms: u64) -> bool;

    /// Checks the claims of a newer authentication of a connection's user.
    fn check_refresh(&self, user: Option<&str>, claims: &[(ByteString, ByteString)]) -> Result<(), RefreshRefused>;
}

/// Rules without tokens: all hubs belong to the fleet, and nothing is revoked.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct OpenAccess;

#[cfg(test)]
impl AccessRules for OpenAccess {
    fn has_apps(&self) -> bool {
        false
    }

    fn owner_of(&self, _hub: &str) -> Signer {
        Signer::Fleet
    }

    fn has_revoked_since(&self, _mark: RevocationMark, _user: Option<&str>) -> bool {
        false
    }

    fn has_closed(&self, _user: Option<&str>, _opened_ms: u64) -> bool {
        false
    }

    fn check_refresh(&self, _user: Option<&str>, _claims: &[(ByteString, ByteString)]) -> Result<(), RefreshRefused> {
        Ok(())
    }
}

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
///
/// The memberships are in a layer above, which implements it.
pub(crate) trait KeptMemberships: fmt::Debug + Send + Sync {
    /// Whether there are no memberships. Checked first for each new connection.
    fn is_empty(&self) -> bool;

    /// Groups of a user in a hub, given its fleet-wide name.
    fn groups_of(&self, hub: &str, user: &str) -> Vec<ByteString>;

    /// Stores or removes a user's memberships as requested by a message; other messages have no effect. Fails if too
    /// many are stored.
    fn note_change(&self, hub: &str, message: &ServiceMessage) -> Result<(), MembershipRefused>;

    /// Removes the expired memberships, and returns them.
    fn take_expired(&self) -> Vec<ExpiredMembership>;
}

impl dyn KeptMemberships {
    /// Whether a user is in a group, with or without connections.
    pub(crate) fn contain(&self, hub: &str, user: &str, group: &str) -> bool {
        !self.is_empty() && self.groups_of(hub, user).iter().any(|kept| kept == group)
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

    fn groups_of(&self, _hub: &str, _user: &str) -> Vec<ByteString> {
        Vec::new()
    }

    fn note_change(&self, _hub: &str, _message: &ServiceMessage) -> Result<(), MembershipRefused> {
        Ok(())
    }

    fn take_expired(&self) -> Vec<ExpiredMembership> {
        Vec::new()
    }
}

/// Sender of a request for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestOrigin {
    /// This node: the request goes to the recorder of the set.
    Here,
    /// Another node, which takes this one for the recorder.
    OtherNode,
}

/// Records of all hubs of the fleet.
///
/// The records are in a layer above, which implements it.
pub(crate) trait Recorder: fmt::Debug + Send + Sync {
    /// Carries out a request, given the fleet-wide name of its hub. Requests for one hub are carried out in the order
    /// of the calls, whenever their futures are polled.
    fn request_record(
        &self,
        hub: &str,
        request: RecordRequest,
        origin: RequestOrigin,
    ) -> Pin<Box<dyn Future<Output = RecordReply> + Send>>;
}

/// Sets that count as having a member until this is dropped.
pub(crate) trait InterestHold: fmt::Debug + Send {}

/// Notified of sets, not of members, so never for a message.
///
/// Anything that reveals the presence of a set's first member (an ack, a handshake response) waits until the other
/// nodes have confirmed the interest. The confirmations are in a layer above, which implements [`SetInterest`].
pub(crate) trait SetInterest: fmt::Debug + Send + Sync {
    /// Records the first member of a set on a shard.
    fn enter(&self, hub: HubIndex, set: Wanted<'_>);

    /// Records that a set lost its last member on a shard.
    fn leave(&self, hub: HubIndex, set: Wanted<'_>);

    /// Makes sets count as having a member in advance. The future ends when the other nodes have confirmed them.
    fn announce(
        self: Arc<Self>,
        hub: HubIndex,
        sets: &[Wanted<'_>],
    ) -> Pin<Box<dyn Future<Output = Box<dyn InterestHold>> + Send>>;

    /// Runs an action when the other nodes have confirmed that a set has members here: immediately, unless its first
    /// member is new.
    fn when_confirmed(&self, hub: HubIndex, set: Wanted<'_>, act: Box<dyn FnOnce() + Send>);

    /// Whether any set of a hub has members here, or the end of one is not yet reported.
    fn has_sets(&self, hub: HubIndex) -> bool;
}
