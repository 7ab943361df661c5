//! Purpose of a service message: its class, audience and acknowledgement.
//!
//! Both ends rely on these properties, so a new message is described once, beside its layout.

use std::slice::from_ref;

use bytestring::ByteString;

use super::message_table::service_messages;
use super::service_message::{Payloads, ServiceMessage};

/// Class of a service message: its sender, and the receiver's obligations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageClass {
    /// Bytes of one client connection over its own link.
    Data,
    /// Hub message for clients at any node.
    Send,
    /// Change without an ack.
    Change,
    /// Change with an ack.
    Order,
    /// Query without side effects, answered by the ack.
    Question,
    /// Client result request, or an answer to it.
    ClientResult,
    /// Keep-alive and flow control of either end.
    Control,
    /// Notification from an app server to a connection's node.
    Report,
    /// Notification from a node to its app servers.
    Notice,
    /// Link handshake, or a notification that only a service sends to an app server.
    Service,
}

/// Target clients of a service message, before exclusions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// All connections of the hub.
    Everyone,
    /// Connections with these ids.
    Connections(&'a [ByteString]),
    /// Members of groups, once per group.
    Groups(&'a [ByteString]),
    /// Connections of these users.
    Users(&'a [ByteString]),
}

/// Clients excluded from an [`Audience`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exclusions<'a> {
    /// Excluded connections, by id.
    pub connections: &'a [ByteString],
    /// Users excluded with all their connections.
    pub users: &'a [ByteString],
}

macro_rules! ack_id {
    (Order $it:ident) => {
        Some($it.ack_id)
    };
    (Question $it:ident) => {
        Some($it.ack_id)
    };
    ($class:ident $it:ident) => {
        None
    };
}

macro_rules! classes {
    ($($(#[$doc:meta])* $number:literal $name:ident($body:ident) $class:ident $layout:tt;)*) => {
        impl ServiceMessage {
            /// Class of the message.
            #[must_use]
            pub fn class(&self) -> MessageClass {
                match self {
                    $(Self::$name(_) => MessageClass::$class,)*
                }
            }

            /// Id of the ack requested by an [order](MessageClass::Order) or [question](MessageClass::Question).
            #[must_use]
            pub fn ack_id(&self) -> Option<i64> {
                match self {
                    $(Self::$name(_it) => ack_id!($class _it),)*
                }
            }
        }
    };
}

service_messages!(classes);

impl ServiceMessage {
    /// Target clients of the message; `None` if it has none, or if only its parties know them.
    #[must_use]
    pub fn audience(&self) -> Option<Audience<'_>> {
        Some(match self {
            Self::BroadcastData(_) | Self::CloseConnectionsWithAck(_) => Audience::Everyone,
            Self::ConnectionData(it) => Audience::Connections(from_ref(&it.connection_id)),
            Self::MultiConnectionData(it) => Audience::Connections(&it.connection_ids),
            Self::CloseConnection(it) => Audience::Connections(from_ref(&it.connection_id)),
            Self::ClientInvocation(it) => Audience::Connections(from_ref(&it.connection_id)),
            Self::RefreshConnectionWithAck(it) => Audience::Connections(from_ref(&it.connection_id)),
            Self::JoinGroup(it) | Self::LeaveGroup(it) | Self::JoinGroupWithAck(it) | Self::LeaveGroupWithAck(it) => {
                Audience::Connections(from_ref(&it.connection_id))
            }
            Self::RefreshAuth(it) => Audience::Connections(from_ref(&it.connection)),
            Self::GetConnectionClaims(it) => Audience::Connections(from_ref(&it.subject)),
            Self::CheckConnectionExistenceWithAck(it) => Audience::Connections(from_ref(&it.subject)),
            Self::CloseConnectionWithAck(it) => Audience::Connections(from_ref(&it.subject)),
            Self::GroupBroadcastData(it) => Audience::Groups(from_ref(&it.group)),
            Self::MultiGroupBroadcastData(it) => Audience::Groups(&it.groups),
            Self::CheckGroupExistenceWithAck(it) => Audience::Groups(from_ref(&it.subject)),
            Self::CloseGroupConnectionsWithAck(it) => Audience::Groups(from_ref(&it.subject)),
            Self::GroupMemberQuery(it) => Audience::Groups(from_ref(&it.group)),
            Self::UserData(it) => Audience::Users(from_ref(&it.user_id)),
            Self::MultiUserData(it) => Audience::Users(&it.user_ids),
            Self::UserJoinGroup(it)
            | Self::UserLeaveGroup(it)
            | Self::UserJoinGroupWithAck(it)
            | Self::UserLeaveGroupWithAck(it) => Audience::Users(from_ref(&it.user_id)),
            Self::CheckUserInGroupWithAck(it) => Audience::Users(from_ref(&it.user_id)),
            Self::CheckUserExistenceWithAck(it) => Audience::Users(from_ref(&it.subject)),
            Self::CloseUserConnectionsWithAck(it) => Audience::Users(from_ref(&it.subject)),
            Self::UserConnectionQuery(it) => Audience::Users(from_ref(&it.user_id)),
            Self::Recorded(it) if it.set.is_user => Audience::Users(from_ref(&it.set.name)),
            Self::Recorded(it) => Audience::Groups(from_ref(&it.set.name)),
            _ => return None,
        })
    }

    /// Clients excluded from the audience.
    #[must_use]
    pub fn exclusions(&self) -> Exclusions<'_> {
        match self {
            Self::BroadcastData(it) => Exclusions { connections: &it.excluded, users: &[] },
            Self::GroupBroadcastData(it) => Exclusions { connections: &it.excluded, users: &it.excluded_users },
            Self::CloseConnectionWithAck(it)
            | Self::CloseConnectionsWithAck(it)
            | Self::CloseUserConnectionsWithAck(it)
            | Self::CloseGroupConnectionsWithAck(it) => Exclusions { connections: &it.excluded, users: &[] },
            _ => Exclusions::default(),
        }
    }

    /// Hub message of a [send](MessageClass::Send), once per hub protocol.
    #[must_use]
    pub fn payloads(&self) -> Option<&Payloads> {
        match self {
            Self::MultiConnectionData(it) => Some(&it.payloads),
            Self::UserData(it) => Some(&it.payloads),
            Self::MultiUserData(it) => Some(&it.payloads),
            Self::BroadcastData(it) => Some(&it.payloads),
            Self::GroupBroadcastData(it) => Some(&it.payloads),
            Self::MultiGroupBroadcastData(it) => Some(&it.payloads),
            _ => None,
        }
    }

    /// Whether the message also affects clients that connect later, at any node.
    #[must_use]
    pub fn outlasts_connections(&self) -> bool {
        match self {
            Self::UserJoinGroup(it) | Self::UserJoinGroupWithAck(it) => it.ttl_s.is_some_and(|seconds| seconds > 0),
            Self::UserLeaveGroup(_) | Self::UserLeaveGroupWithAck(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        BroadcastData, CloseWithAck, GroupBroadcastData, GroupChange, MultiUserData, Ping, UserConnectionQuery,
        UserGroupChange,
    };
    use super::*;

    #[test]
    fn a_send_has_its_receivers_and_exclusions() {
        let message = ServiceMessage::GroupBroadcastData(GroupBroadcastData {
            group: "red".into(),
            excluded: vec!["c1".into()],
            excluded_users: vec!["ann".into()],
            ..GroupBroadcastData::default()
        });
        assert_eq!((message.class(), message.ack_id()), (MessageClass::Send, None));
        assert_eq!(message.audience(), Some(Audience::Groups(&["red".into()])));
        assert_eq!(message.exclusions(), Exclusions { connections: &["c1".into()], users: &["ann".into()] });
        assert!(message.payloads().is_some());
        let users = vec!["ann".into(), "ben".into()];
        let message = ServiceMessage::MultiUserData(MultiUserData { user_ids: users.clone(), ..Default::default() });
        assert_eq!(message.audience(), Some(Audience::Users(&users)));
        let message = ServiceMessage::BroadcastData(BroadcastData::default());
        assert_eq!((message.audience(), message.exclusions()), (Some(Audience::Everyone), Exclusions::default()));
    }

    #[test]
    fn orders_and_questions_have_an_ack_id() {
        let change = GroupChange { connection_id: "c1".into(), group: None, ack_id: 7 };
        let order = ServiceMessage::LeaveGroupWithAck(change.clone());
        assert_eq!((order.class(), order.ack_id()), (MessageClass::Order, Some(7)));
        let plain = ServiceMessage::LeaveGroup(change);
        assert_eq!((plain.class(), plain.ack_id()), (MessageClass::Change, None));
        assert_eq!((plain.audience(), order.audience()), (order.audience(), plain.audience()));
        let question = ServiceMessage::UserConnectionQuery(UserConnectionQuery {
            ack_id: 8,
            user_id: "ann".into(),
            ..Default::default()
        });
        assert_eq!((question.class(), question.ack_id()), (MessageClass::Question, Some(8)));
        let close = CloseWithAck { ack_id: 9, excluded: vec!["c2".into()], ..CloseWithAck::default() };
        let close = ServiceMessage::CloseConnectionsWithAck(close);
        assert_eq!((close.audience(), close.ack_id()), (Some(Audience::Everyone), Some(9)));
        assert_eq!(close.exclusions().connections, ["c2"]);
        let ping = ServiceMessage::Ping(Ping::default());
        assert_eq!((ping.class(), ping.audience(), ping.ack_id()), (MessageClass::Control, None, None));
    }

    #[test]
    fn a_membership_with_a_time_to_live_outlasts_connections() {
        let join = |ttl_s| ServiceMessage::UserJoinGroup(UserGroupChange { ttl_s, ..UserGroupChange::default() });
        assert!(!join(None).outlasts_connections() && !join(Some(0)).outlasts_connections());
        assert!(join(Some(1)).outlasts_connections());
        assert!(ServiceMessage::UserLeaveGroup(UserGroupChange::default()).outlasts_connections());
        assert!(!ServiceMessage::LeaveGroup(GroupChange::default()).outlasts_connections());
    }
}
