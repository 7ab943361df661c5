//! Group membership: changes, acknowledged by the proxies that hold the connections, and questions.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::service::{
    Ack, AckStatus, Check, CheckUserInGroup, GroupChange, ServiceMessage, UserGroupChange,
};

use super::answer::Answer;
use super::members::{ListedSet, Members, count};
use super::question::{ProxyReply, Silence, all_nodes, ask, inquire, is_anywhere};
use crate::error::{AskError, GroupError};
use crate::hub_core::HubCore;
use crate::node::Node;

/// Membership of groups. A group begins with its first member and ends with its last.
///
/// Membership is kept by the proxy that holds the connection, so it outlives this app server. A change is done
/// when its future returns: a send that follows reaches the new member.
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

    /// Adds a connection to a group; it may be any connection of the hub. One that doesn't exist is ignored.
    ///
    /// # Errors
    /// When the group has no name or [one that is too long](crate::Hub::group_name_max_bytes), when the connection is
    /// in as many groups as the proxy allows, or when the proxy did not acknowledge within 10 s.
    pub async fn add(&self, connection_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_connection(connection_id.as_ref().into(), Some(self.joined(group)?), MembershipChange::Join).await
    }

    /// Removes a connection from a group. One that is no member or doesn't exist is ignored.
    ///
    /// # Errors
    /// When the group has no name, or the proxy did not acknowledge within 10 s.
    pub async fn remove(&self, connection_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_connection(connection_id.as_ref().into(), Some(named(group)?), MembershipChange::Leave).await
    }

    /// Removes a connection from all groups. One that doesn't exist is ignored.
    ///
    /// # Errors
    /// When the proxy did not acknowledge within 10 s.
    pub async fn remove_from_all(&self, connection_id: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_connection(connection_id.as_ref().into(), None, MembershipChange::Leave).await
    }

    /// Adds all connections that a user has now to a group. Those that the user opens later are not in it: let
    /// `on_connected` join them.
    ///
    /// # Errors
    /// As those of [`add`](Self::add).
    pub async fn add_user(&self, user_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_user(user_id.as_ref().into(), Some(self.joined(group)?), MembershipChange::Join).await
    }

    /// Removes all connections of a user from a group.
    ///
    /// # Errors
    /// When the group has no name, or a proxy did not acknowledge within 10 s.
    pub async fn remove_user(&self, user_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_user(user_id.as_ref().into(), Some(named(group)?), MembershipChange::Leave).await
    }

    /// Removes all connections of a user from all groups.
    ///
    /// # Errors
    /// When a proxy did not acknowledge within 10 s.
    pub async fn remove_user_from_all(&self, user_id: impl AsRef<str>) -> Result<(), GroupError> {
        self.change_user(user_id.as_ref().into(), None, MembershipChange::Leave).await
    }

    /// Name of a group that is to be joined. It is kept as long as the group has members, and often it is a client's
    /// choice.
    fn joined(&self, group: impl AsRef<str>) -> Result<ByteString, GroupError> {
        let (name, limit) = (named(group)?, self.core.limits.group_name_max_bytes);
        if name.len() > limit { Err(GroupError::NameTooLong { length: name.len(), limit }) } else { Ok(name) }
    }

    /// Asks the proxy that holds the connection, or all of them if it is held by another app server.
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
            return outcome(self.ask(&self.core.outbound.nodes(), message).await?);
        };
        // While it moves, the node that has had it could forget the change.
        let passage = known.home().pass().await;
        let changed = outcome(self.ask(&[Arc::clone(passage.node())], message).await?);
        if changed.is_ok() && self.core.lost.are_kept() {
            match (change, group) {
                (MembershipChange::Join, Some(group)) => known.note_joined(group),
                (MembershipChange::Join, None) => {}
                (MembershipChange::Leave, group) => known.note_left(group.as_deref()),
            }
        }
        changed
    }

    /// Asks all proxies, each of which may have connections of the user.
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
        self.ask(&self.core.outbound.nodes(), message).await?.into_iter().try_for_each(done)
    }

    async fn ask(
        &self,
        nodes: &[Arc<Node>],
        message: impl Fn(i64) -> ServiceMessage,
    ) -> Result<Vec<ProxyReply>, GroupError> {
        ask(&self.core, nodes, message).await.map_err(|error| GroupError::Failed(error.to_string()))
    }
}

/// Questions about groups: each goes to every proxy of the hub, and the answers are put together.
impl Groups {
    /// Whether a group has members.
    ///
    /// # Errors
    /// When the group has no name, and when no proxy knows it and one did not answer within 10 s.
    pub async fn exists(&self, group: impl AsRef<str>) -> Result<bool, AskError> {
        let subject = asked(group)?;
        let message = |ack_id| ServiceMessage::CheckGroupExistenceWithAck(Check { subject: subject.clone(), ack_id });
        is_anywhere(inquire(&self.core, &all_nodes(&self.core)?, message).await?)
    }

    /// Whether a connection of this user is a member of the group.
    ///
    /// # Errors
    /// When the group has no name, and when no proxy has such a member and one did not answer within 10 s.
    pub async fn contains_user(&self, user_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<bool, AskError> {
        let (user_id, group) = (ByteString::from(user_id.as_ref()), asked(group)?);
        let message = |ack_id| {
            let (user_id, group) = (user_id.clone(), group.clone());
            ServiceMessage::CheckUserInGroupWithAck(CheckUserInGroup { user_id, group, ack_id })
        };
        is_anywhere(inquire(&self.core, &all_nodes(&self.core)?, message).await?)
    }

    /// Lists the members of a group, a page at a time, or [all](Members::all) of them.
    pub fn members(&self, group: impl AsRef<str>) -> Members {
        Members::new(&self.core, ListedSet::Group(group.as_ref().into()))
    }

    /// Number of members of a group: connections, not users. Costs the same however many there are.
    ///
    /// # Errors
    /// When the group has no name, when no proxy answered, and when too many questions wait. Proxies that did not
    /// answer are [told](Answer::missing).
    pub async fn count(&self, group: impl AsRef<str>) -> Result<Answer<u64>, AskError> {
        count(&self.core, &ListedSet::Group(asked(group)?)).await
    }

    /// The users who have a connection in a group, each once, in the order of their names. Members without a user are
    /// left out.
    ///
    /// # Errors
    /// When the group has no name or more than 100 000 members, and when no proxy answered. Those that did not are
    /// [told](Answer::missing).
    pub async fn users(&self, group: impl AsRef<str>) -> Result<Answer<Vec<String>>, AskError> {
        Ok(self.members(group).all().await?.map(|members| {
            let users: BTreeSet<_> = members.into_iter().filter_map(|member| member.user_id).collect();
            users.into_iter().collect()
        }))
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Groups of {}", self.core.name())
    }
}

fn named(group: impl AsRef<str>) -> Result<ByteString, GroupError> {
    if group.as_ref().is_empty() { Err(GroupError::EmptyGroupName) } else { Ok(group.as_ref().into()) }
}

fn asked(group: impl AsRef<str>) -> Result<ByteString, AskError> {
    if group.as_ref().is_empty() { Err(AskError::EmptyGroupName) } else { Ok(group.as_ref().into()) }
}

/// Outcome of a change: one proxy that made it is enough; one that doesn't know the connection has nothing to do.
fn outcome(replies: Vec<ProxyReply>) -> Result<(), GroupError> {
    let is_done = |reply: &ProxyReply| reply.as_ref().is_ok_and(|ack| ack.status == AckStatus::Ok);
    if replies.iter().any(is_done) { Ok(()) } else { replies.into_iter().try_for_each(done) }
}

/// Outcome at one proxy. One that went away before it was asked has no connections any more.
fn done(reply: ProxyReply) -> Result<(), GroupError> {
    match reply {
        Err(Silence::NotAsked) => Ok(()),
        Err(Silence::LinkLost) => Err(GroupError::LinkLost),
        Err(Silence::Timeout) => Err(GroupError::Timeout),
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
        let replies = vec![reply(AckStatus::NotFound), Err(Silence::LinkLost), reply(AckStatus::Ok)];
        assert!(outcome(replies).is_ok());
    }

    #[test]
    fn an_unknown_connection_is_ignored() {
        assert!(outcome(vec![reply(AckStatus::NotFound), Err(Silence::NotAsked)]).is_ok());
        assert!(outcome(vec![]).is_ok());
    }

    #[test]
    fn a_failure_is_an_error() {
        assert!(matches!(outcome(vec![Err(Silence::LinkLost)]), Err(GroupError::LinkLost)));
        assert!(matches!(outcome(vec![Err(Silence::Timeout)]), Err(GroupError::Timeout)));
        assert!(matches!(outcome(vec![reply(AckStatus::Timeout)]), Err(GroupError::Timeout)));
        let failed = outcome(vec![reply(AckStatus::InternalServerError)]);
        assert!(matches!(failed, Err(GroupError::Failed(text)) if text == "InternalServerError"));
    }
}
