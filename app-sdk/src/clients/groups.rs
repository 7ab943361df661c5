//! Group membership, acknowledged by the proxy that holds the connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use trunkline_protocol::limits::ACK_TIMEOUT_MS;
use trunkline_protocol::service::{Ack, AckStatus, GroupChange, ServiceMessage};

use crate::error::GroupError;
use crate::hub_core::HubCore;
use crate::outbound::checked_frame;

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
    /// When the group has no name, or the proxy did not acknowledge within 10 s.
    pub async fn add(&self, connection_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change(connection_id.as_ref().into(), group.as_ref().into(), MembershipChange::Join).await
    }

    /// Removes a connection from a group. One that is no member or doesn't exist is ignored.
    ///
    /// # Errors
    /// When the group has no name, or the proxy did not acknowledge within 10 s.
    pub async fn remove(&self, connection_id: impl AsRef<str>, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.change(connection_id.as_ref().into(), group.as_ref().into(), MembershipChange::Leave).await
    }

    async fn change(
        &self,
        connection_id: ByteString,
        group: ByteString,
        change: MembershipChange,
    ) -> Result<(), GroupError> {
        if group.is_empty() {
            return Err(GroupError::EmptyGroupName);
        }
        let asked = self.ask(connection_id, group, change);
        let answers = tokio::time::timeout(Duration::from_millis(ACK_TIMEOUT_MS), asked).await;
        outcome(answers.map_err(|_| GroupError::Timeout)??)
    }

    /// Asks the proxy that holds the connection, or all of them if it is held by another app server.
    async fn ask(
        &self,
        connection_id: ByteString,
        group: ByteString,
        change: MembershipChange,
    ) -> Result<Vec<Option<Ack>>, GroupError> {
        let known = self.core.connection(&connection_id);
        let nodes =
            known.map_or_else(|| self.core.outbound.nodes(), |connection| Arc::new([Arc::clone(connection.node())]));
        let mut expected = Vec::new();
        for node in nodes.iter() {
            let ack = self.core.expect_ack(node);
            let (connection_id, group) = (connection_id.clone(), Some(group.clone()));
            let body = GroupChange { connection_id, group, ack_id: ack.id() };
            let message = match change {
                MembershipChange::Join => ServiceMessage::JoinGroupWithAck(body),
                MembershipChange::Leave => ServiceMessage::LeaveGroupWithAck(body),
            };
            let frame = checked_frame(&message).map_err(|error| GroupError::Failed(error.to_string()))?;
            if self.core.outbound.send(node, &frame).await {
                expected.push(ack);
            }
        }
        let mut answers = Vec::new();
        for mut ack in expected {
            answers.push(ack.received().await);
        }
        Ok(answers)
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Groups of {}", self.core.name())
    }
}

/// Outcome of a change: one proxy that made it is enough; one that doesn't know the connection has nothing to do.
fn outcome(answers: Vec<Option<Ack>>) -> Result<(), GroupError> {
    let is_done = |answer: &Option<Ack>| answer.as_ref().is_some_and(|ack| ack.status == AckStatus::Ok);
    if answers.iter().any(is_done) {
        return Ok(());
    }
    answers.into_iter().try_for_each(|answer| match answer {
        None => Err(GroupError::LinkLost),
        Some(Ack { status: AckStatus::Ok | AckStatus::NotFound, .. }) => Ok(()),
        Some(Ack { status: AckStatus::Timeout, .. }) => Err(GroupError::Timeout),
        Some(Ack { status, message, .. }) => {
            Err(GroupError::Failed(message.map_or_else(|| format!("{status:?}"), |text| text.to_string())))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: AckStatus) -> Option<Ack> {
        Some(Ack { ack_id: 1, status, message: None })
    }

    #[test]
    fn one_proxy_that_did_it_is_enough() {
        assert!(outcome(vec![answer(AckStatus::NotFound), None, answer(AckStatus::Ok)]).is_ok());
    }

    #[test]
    fn an_unknown_connection_is_ignored() {
        assert!(outcome(vec![answer(AckStatus::NotFound), answer(AckStatus::NotFound)]).is_ok());
        assert!(outcome(vec![]).is_ok());
    }

    #[test]
    fn a_failure_is_an_error() {
        assert!(matches!(outcome(vec![None]), Err(GroupError::LinkLost)));
        assert!(matches!(outcome(vec![answer(AckStatus::Timeout)]), Err(GroupError::Timeout)));
        let failed = outcome(vec![answer(AckStatus::InternalServerError)]);
        assert!(matches!(failed, Err(GroupError::Failed(text)) if text == "InternalServerError"));
    }
}
