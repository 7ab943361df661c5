//! Audience of a message: which connections of a hub it is for; how the groups change by which they are found; and
//! where it comes from.

use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::fleet;
use trunkline_protocol::service::{ClientFilter, GroupChange, ServiceMessage};

use crate::upstream::AppServerId;

/// Receivers of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receivers {
    pub who: Audience,
    /// Connections that are excluded.
    pub excluded: Vec<ByteString>,
    /// Users whose connections are excluded.
    pub excluded_users: Vec<ByteString>,
    /// Filter that receivers also have to match.
    pub filter: Option<Arc<ClientFilter>>,
}

/// Receivers of a message before exclusions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All connections of the hub.
    Everyone,
    Connections(Vec<ByteString>),
    /// The members of groups, once per group.
    Groups(Vec<ByteString>),
    /// The connections of users.
    Users(Vec<ByteString>),
}

impl Audience {
    /// Whether it is one set of clients: none of them is in it twice.
    #[must_use]
    pub(crate) fn is_one_set(&self) -> bool {
        match self {
            Self::Everyone => true,
            Self::Groups(names) | Self::Users(names) => names.len() == 1,
            Self::Connections(_) => false,
        }
    }
}

impl From<Audience> for Receivers {
    fn from(who: Audience) -> Self {
        Self { who, excluded: Vec::new(), excluded_users: Vec::new(), filter: None }
    }
}

/// Change of a connection's groups.
#[derive(Debug, Clone)]
pub(crate) enum MembershipChange {
    Join(ByteString),
    Leave(ByteString),
    LeaveAll,
}

impl MembershipChange {
    /// Notice of the change for the app server of a connection.
    #[must_use]
    pub(crate) fn notice(&self, id: &str) -> ServiceMessage {
        let change = |group: Option<&ByteString>| GroupChange {
            connection_id: id.into(),
            group: group.cloned(),
            ..GroupChange::default()
        };
        match self {
            Self::Join(group) => ServiceMessage::JoinGroup(change(Some(group))),
            Self::Leave(group) => ServiceMessage::LeaveGroup(change(Some(group))),
            // The frame without an answer can't say that.
            Self::LeaveAll => ServiceMessage::LeaveGroupWithAck(change(None)),
        }
    }
}

/// Origin of a send to many. By dial-in the sender is the node at which it entered the fleet, by the number of its boot
/// id.
pub(crate) type SendOrigin = fleet::SendOrigin<AppServerId>;
