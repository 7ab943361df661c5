//! Clients addressed by back ends and operators, with the messages to them in the form sent by app servers.

use std::borrow::Cow;

use bytestring::ByteString;
use trunkline_protocol::service::{
    BroadcastData, CloseWithAck, Filtered, GroupBroadcastData, GroupChange, MultiConnectionData, Payloads,
    ServiceMessage, UserData, UserGroupChange,
};

/// Clients of a hub that get a message, or that an order is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Addressee {
    Everyone,
    Group(String),
    User(String),
    Connection(String),
    /// Clients matched by this `:execute` filter.
    Matching(String),
}

impl Addressee {
    /// Filter that matches these clients.
    pub(super) fn filter(&self) -> Cow<'_, str> {
        let quoted = |name: &str| name.replace('\'', "''");
        match self {
            Self::Everyone => "connectionId ne null".into(),
            Self::Group(name) => format!("'{}' in groups", quoted(name)).into(),
            Self::User(id) => format!("userId eq '{}'", quoted(id)).into(),
            Self::Connection(id) => format!("connectionId eq '{}'", quoted(id)).into(),
            Self::Matching(filter) => filter.into(),
        }
    }
}

/// Message to clients in the form sent by app servers.
pub(crate) fn to_clients(to: Addressee, payloads: Payloads, excluded: Vec<ByteString>) -> ServiceMessage {
    match to {
        Addressee::Everyone => ServiceMessage::BroadcastData(BroadcastData { excluded, payloads }),
        Addressee::Group(group) => {
            let group = group.into();
            ServiceMessage::GroupBroadcastData(GroupBroadcastData { group, excluded, payloads, ..Default::default() })
        }
        Addressee::User(user) => ServiceMessage::UserData(UserData { user_id: user.into(), payloads }),
        Addressee::Connection(id) => {
            ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids: vec![id.into()], payloads })
        }
        Addressee::Matching(filter) => {
            filtered(&filter, &ServiceMessage::BroadcastData(BroadcastData { excluded, payloads }))
        }
    }
}

pub(super) fn close_order(whom: &Addressee, reason: Option<String>, excluded: Vec<ByteString>) -> ServiceMessage {
    let close =
        |subject: &str| CloseWithAck { subject: subject.into(), reason: reason.map(Into::into), ack_id: 0, excluded };
    match whom {
        Addressee::Connection(id) => ServiceMessage::CloseConnectionWithAck(close(id)),
        Addressee::Everyone => ServiceMessage::CloseConnectionsWithAck(close("")),
        Addressee::Matching(filter) => filtered(filter, &ServiceMessage::CloseConnectionsWithAck(close(""))),
        Addressee::Group(name) => ServiceMessage::CloseGroupConnectionsWithAck(close(name)),
        Addressee::User(id) => ServiceMessage::CloseUserConnectionsWithAck(close(id)),
    }
}

pub(super) fn filtered(filter: &str, message: &ServiceMessage) -> ServiceMessage {
    ServiceMessage::Filtered(Filtered { filter: filter.into(), body: message.to_body() })
}

/// Order to add clients to a group: a connection, a user's current connections, or those matched by a filter.
pub(crate) fn join_order(whom: &Addressee, group: String) -> ServiceMessage {
    match whom {
        Addressee::User(user) => ServiceMessage::UserJoinGroupWithAck(UserGroupChange {
            ttl_s: Some(0),
            ..user_change(user.clone(), Some(group))
        }),
        Addressee::Connection(id) => ServiceMessage::JoinGroupWithAck(change(id.clone(), Some(group))),
        whom => filtered(&whom.filter(), &ServiceMessage::JoinGroupWithAck(change(String::new(), Some(group)))),
    }
}

pub(crate) fn leave_order(whom: &Addressee, group: String) -> ServiceMessage {
    match whom {
        Addressee::User(user) => ServiceMessage::UserLeaveGroupWithAck(user_change(user.clone(), Some(group))),
        Addressee::Connection(id) => ServiceMessage::LeaveGroupWithAck(change(id.clone(), Some(group))),
        whom => filtered(&whom.filter(), &ServiceMessage::LeaveGroupWithAck(change(String::new(), Some(group)))),
    }
}

pub(super) fn change(connection: String, group: Option<String>) -> GroupChange {
    GroupChange { connection_id: connection.into(), group: group.map(Into::into), ack_id: 0 }
}

pub(super) fn user_change(user: String, group: Option<String>) -> UserGroupChange {
    UserGroupChange { user_id: user.into(), group: group.map(Into::into), ack_id: 0, ttl_s: None }
}
