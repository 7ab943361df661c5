//! Changes and queries of group membership.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::service::{
    Ack, AckStatus, Check, CheckUserInGroup, GroupChange, ServiceMessage, UserGroupChange,
};

use super::members::{ListedSet, Members, count};
use super::question::{Answer, NoReply, ProxyReply, all_nodes, is_anywhere, query_all, query_limited};
use crate::brief_debug::brief_debug;
use crate::error::{AskError, GroupError};
use crate::hub_core::HubCore;
use crate::node::Node;

/// Group membership. A group exists while it has members.
///
/// The connection's proxy stores its membership, which therefore survives this app server. A change is complete when
/// its future returns: subsequent sends reach the new member.
///
/// ```no_run
/// # async fn f(handle: trunkline::ServerHandle, id: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let groups = handle.hub("chat")?.groups();
/// groups.add(id, "kitchen").await?;
/// groups.remove(id, "hall").await?;
/// println!("{} in the kitchen, among them {:?}", *groups.count("kitchen").await?, *groups.users("kitchen").await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Groups {
    core: Arc<HubCore>,
}

#[derive(Clone, Copy)]
enum MembershipChange {
    Join,
    Leave,
}

impl Groups {
    pub(crate) fn new(core: &Arc<HubCore>) -> Self {
        Self { core: Arc::clone(core) }
    }

    /// Adds any connection of the hub to a group. Unknown connections are ignored.
    ///
    /// # Errors
    /// If the group name is empty or [too long](crate::Hub::group_name_max_bytes), the connection is in as many
    /// groups as the proxy allows, or the proxy did not acknowledge within 10 s.
    pub async fn add(&self, connection_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_connection(connection_id.as_ref().into(), Some(self.joined(group)?), MembershipChange::Join).await
    }

    /// Removes a connection from a group. Connections that are unknown or not members are ignored.
    ///
    /// # Errors
    /// If the group name is empty, or the proxy did not acknowledge within 10 s.
    pub async fn remove(&self, connection_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_connection(connection_id.as_ref().into(), Some(named(group)?), MembershipChange::Leave).await
    }

    /// Removes a connection from all groups. Unknown connections are ignored.
    ///
    /// # Errors
    /// If the proxy did not acknowledge within 10 s.
    pub async fn remove_from_all(&self, connection_id: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_connection(connection_id.as_ref().into(), None, MembershipChange::Leave).await
    }

    /// Adds all current connections of a user to a group. For later ones, use `on_connected`.
    ///
    /// # Errors
    /// The errors of [`add`](Self::add).
    pub async fn add_user(&self, user_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_user(user_id.as_ref().into(), Some(self.joined(group)?), MembershipChange::Join).await
    }

    /// Removes all connections of a user from a group.
    ///
    /// # Errors
    /// If the group name is empty, or a proxy did not acknowledge within 10 s.
    pub async fn remove_user(&self, user_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_user(user_id.as_ref().into(), Some(named(group)?), MembershipChange::Leave).await
    }

    /// Removes all connections of a user from all groups.
    ///
    /// # Errors
    /// If a proxy did not acknowledge within 10 s.
    pub async fn remove_user_from_all(&self, user_id: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_user(user_id.as_ref().into(), None, MembershipChange::Leave).await
    }

    /// Validates the name of a group to join, which is stored while the group has members.
    fn joined(&self, group: impl AsRef<str>) -> Result<ByteString, GroupError> {
        let (name, limit) = (named(group)?, self.core.limits.group_name_max_bytes);
        if name.len() > limit { Err(GroupError::NameTooLong { length: name.len(), limit }) } else { Ok(name) }
    }

    /// Sends the change to the proxy of the connection, or to all proxies if the connection is not here.
    async fn change_connection(
        &self,
        connection_id: ByteString,
        group: Option<ByteString>,
        change: MembershipChange,
    ) -> Result<(), GroupError> {
        let message = |ack_id| {
            let body = GroupChange { connection_id: connection_id.clone(), group: group.clone(), ack_id };
            match change {
                MembershipChange::Join => ServiceMessage::JoinGroupWithAck(body),
                MembershipChange::Leave => ServiceMessage::LeaveGroupWithAck(body),
            }
        };
        let Some(known) = self.core.connections.get(&connection_id) else {
            return outcome(self.query_all(&self.core.outbound.nodes(), message).await?);
        };
        // During a move, the previous node might lose the change.
        let permit = known.home.pass().await;
        outcome(self.query_all(&[Arc::clone(&permit.node)], message).await?)
    }

    /// Sends the change to all proxies, since each may have connections of the user.
    async fn change_user(
        &self,
        user_id: ByteString,
        group: Option<ByteString>,
        change: MembershipChange,
    ) -> Result<(), GroupError> {
        let message = |ack_id| {
            let (user_id, group) = (user_id.clone(), group.clone());
            let body = UserGroupChange { user_id, group, ack_id, ttl_s: None };
            match change {
                MembershipChange::Join => ServiceMessage::UserJoinGroupWithAck(body),
                MembershipChange::Leave => ServiceMessage::UserLeaveGroupWithAck(body),
            }
        };
        self.query_all(&self.core.outbound.nodes(), message).await?.into_iter().try_for_each(done)
    }

    async fn query_all(
        &self,
        nodes: &[Arc<Node>],
        message: impl Fn(i64) -> ServiceMessage,
    ) -> Result<Vec<ProxyReply>, GroupError> {
        query_all(&self.core, nodes, message).await.map_err(|error| GroupError::Failed(error.to_string()))
    }
}

impl Groups {
    /// Whether a group has members.
    ///
    /// # Errors
    /// If the group name is empty, or if no proxy has the group and at least one did not reply within 10 s.
    pub async fn exists(&self, group: impl AsRef<str>) -> Result<bool, AskError> {
        let subject = checked_query_name(group)?;
        let message = |ack_id| ServiceMessage::CheckGroupExistenceWithAck(Check { subject: subject.clone(), ack_id });
        is_anywhere(query_limited(&self.core, &all_nodes(&self.core)?, message).await?)
    }

    /// Whether a connection of this user is a member of the group.
    ///
    /// # Errors
    /// If the group name is empty, or if no proxy has such a member and at least one did not reply within 10 s.
    pub async fn contains_user(&self, user_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<bool, AskError> {
        let (user_id, group) = (ByteString::from(user_id.as_ref()), checked_query_name(group)?);
        let message = |ack_id| {
            let (user_id, group) = (user_id.clone(), group.clone());
            ServiceMessage::CheckUserInGroupWithAck(CheckUserInGroup { user_id, group, ack_id })
        };
        is_anywhere(query_limited(&self.core, &all_nodes(&self.core)?, message).await?)
    }

    /// Lists the members of a group, page by page or [all](Members::all) together.
    pub fn members(&self, group: impl AsRef<str>) -> Members {
        Members::new(&self.core, ListedSet::Group(group.as_ref().into()))
    }

    /// Number of members of a group: connections, not users. The cost does not depend on the number.
    ///
    /// # Errors
    /// If the group name is empty, no proxy replied, or too many queries are pending. [`Answer::missing`] lists
    /// proxies that did not reply.
    pub async fn count(&self, group: impl AsRef<str>) -> Result<Answer<u64>, AskError> {
        count(&self.core, &ListedSet::Group(checked_query_name(group)?)).await
    }

    /// Users with a connection in a group, without duplicates, sorted by name. Members without a user are omitted.
    ///
    /// # Errors
    /// If the group name is empty, the group has more than 100 000 members, or no proxy replied. [`Answer::missing`]
    /// lists proxies that did not reply.
    pub async fn users(&self, group: impl AsRef<str>) -> Result<Answer<Vec<String>>, AskError> {
        Ok(self.members(group).all().await?.map(|members| {
            let users: BTreeSet<_> = members.into_iter().filter_map(|member| member.user_id).collect();
            users.into_iter().collect()
        }))
    }
}

brief_debug!(Groups, |it| "Groups of {}", it.core.name());

fn named(group: impl AsRef<str>) -> Result<ByteString, GroupError> {
    if group.as_ref().is_empty() { Err(GroupError::EmptyGroupName) } else { Ok(group.as_ref().into()) }
}

fn checked_query_name(group: impl AsRef<str>) -> Result<ByteString, AskError> {
    if group.as_ref().is_empty() { Err(AskError::EmptyGroupName) } else { Ok(group.as_ref().into()) }
}

/// Combined outcome of a change: one proxy that made it is enough; one without the connection has nothing to do.
fn outcome(replies: Vec<ProxyReply>) -> Result<(), GroupError> {
    let is_done = |reply: &ProxyReply| reply.as_ref().is_ok_and(|ack| ack.status == AckStatus::Ok);
    if replies.iter().any(is_done) { Ok(()) } else { replies.into_iter().try_for_each(done) }
}

/// Outcome at one proxy. A proxy that disconnected before the request has no connections left.
fn done(reply: ProxyReply) -> Result<(), GroupError> {
    match reply {
        Err(NoReply::NotAsked) => Ok(()),
        Err(NoReply::LinkLost) => Err(GroupError::LinkLost),
        Err(NoReply::Timeout) => Err(GroupError::Timeout),
        Ok(Ack { status: AckStatus::Ok | AckStatus::NotFound, .. }) => Ok(()),
        Ok(Ack { status: AckStatus::Timeout, .. }) => Err(GroupError::Timeout),
        Ok(Ack { status, message, .. }) => {
            Err(GroupError::Failed(message.map_or_else(|| format!("{status:?}"), |text| text.to_string())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: AckStatus) -> ProxyReply {
        Ok(Ack { ack_id: 1, status, ..Ack::default() })
    }

    #[test]
    fn one_proxy_that_did_it_is_enough() {
        let replies = vec![reply(AckStatus::NotFound), Err(NoReply::LinkLost), reply(AckStatus::Ok)];
        assert!(outcome(replies).is_ok());
    }

    #[test]
    fn an_unknown_connection_is_ignored() {
        assert!(outcome(vec![reply(AckStatus::NotFound), Err(NoReply::NotAsked)]).is_ok());
        assert!(outcome(vec![]).is_ok());
    }

    #[test]
    fn a_failure_is_an_error() {
        assert!(matches!(outcome(vec![Err(NoReply::LinkLost)]), Err(GroupError::LinkLost)));
        assert!(matches!(outcome(vec![Err(NoReply::Timeout)]), Err(GroupError::Timeout)));
        assert!(matches!(outcome(vec![reply(AckStatus::Timeout)]), Err(GroupError::Timeout)));
        let failed = outcome(vec![reply(AckStatus::InternalServerError)]);
        assert!(matches!(failed, Err(GroupError::Failed(text)) if text == "InternalServerError"));
    }
}
