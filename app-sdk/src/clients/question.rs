//! Queries and commands that proxies acknowledge, sent to several proxies concurrently.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline_protocol::limits::ACK_TIMEOUT_MS;
use trunkline_protocol::service::{Ack, AckStatus, ServiceMessage};

use crate::error::{AskError, SendError};
use crate::hub_core::{HubCore, WAITING_MAX};
use crate::node::Node;
use crate::outbound::checked_frame;

pub(super) type ProxyReply = Result<Ack, NoReply>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoReply {
    /// It had no link when the request was sent.
    NotAsked,
    /// Its last link was lost before the reply.
    LinkLost,
    Timeout,
}

impl From<NoReply> for AskError {
    fn from(no_reply: NoReply) -> Self {
        match no_reply {
            NoReply::NotAsked | NoReply::LinkLost => Self::LinkLost,
            NoReply::Timeout => Self::Timeout,
        }
    }
}

/// All linked proxies of the hub. Fails if the set is empty.
pub(super) fn all_nodes(core: &HubCore) -> Result<Arc<[Arc<Node>]>, AskError> {
    let nodes = core.outbound.nodes();
    if nodes.is_empty() { Err(AskError::NoProxy) } else { Ok(nodes) }
}

/// Sends a request to each of these proxies concurrently, and returns their replies in the same order. `message` builds
/// the request from an acknowledgement ID. Fails if the request is too large for a link. It is then sent to no proxy.
pub(super) async fn query_all(
    core: &HubCore,
    nodes: &[Arc<Node>],
    message: impl Fn(i64) -> ServiceMessage,
) -> Result<Vec<ProxyReply>, SendError> {
    checked_frame(&message(i64::from(i32::MAX)))?;
    Ok(join_all(nodes.iter().map(|node| query_one(core, node, &message))).await)
}

/// Like [`query_all`], for read-only queries, which have limited concurrency. Fails also if too many are pending.
pub(super) async fn query_limited(
    core: &HubCore,
    nodes: &[Arc<Node>],
    message: impl Fn(i64) -> ServiceMessage,
) -> Result<Vec<ProxyReply>, AskError> {
    let Some(_turn) = core.questions.turn().await else {
        core.metrics().questions_refused.inc();
        return Err(AskError::TooManyQuestions(WAITING_MAX));
    };
    Ok(query_all(core, nodes, message).await?)
}

async fn query_one(core: &HubCore, node: &Arc<Node>, message: &impl Fn(i64) -> ServiceMessage) -> ProxyReply {
    let mut ack = core.acks.expect(node);
    let frame = message(ack.id()).to_frame();
    let answering = async {
        if !core.outbound.send(node, &frame).await {
            return Err(NoReply::NotAsked);
        }
        ack.received().await.ok_or(NoReply::LinkLost)
    };
    tokio::time::timeout(Duration::from_millis(ACK_TIMEOUT_MS), answering).await.unwrap_or(Err(NoReply::Timeout))
}

/// Whether any proxy replied yes. A negative result requires replies from all.
pub(super) fn is_anywhere(replies: Vec<ProxyReply>) -> Result<bool, AskError> {
    let is_yes = |reply: &ProxyReply| reply.as_ref().is_ok_and(|ack| ack.status == AckStatus::Ok);
    if replies.iter().any(is_yes) { Ok(true) } else { is_done_everywhere(replies) }
}

/// Whether any proxy found the subject of a command, once all have executed it.
pub(super) fn is_done_everywhere(replies: Vec<ProxyReply>) -> Result<bool, AskError> {
    replies.into_iter().try_fold(false, |is_found, reply| Ok(is_found | is_found_by(reply)?))
}

fn is_found_by(reply: ProxyReply) -> Result<bool, AskError> {
    let ack = reply?;
    match ack.status {
        AckStatus::Ok => Ok(true),
        AckStatus::NotFound => Ok(false),
        _ => Err(failure(ack)),
    }
}

/// Error for a reply that is neither yes nor no.
pub(super) fn failure(ack: Ack) -> AskError {
    match ack.status {
        AckStatus::Timeout => AskError::Timeout,
        status => AskError::Failed(ack.message.map_or_else(|| format!("{status:?}"), |text| text.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: AckStatus) -> ProxyReply {
        Ok(Ack { ack_id: 1, status, ..Ack::default() })
    }

    #[test]
    fn one_yes_is_certain_and_a_no_needs_all() {
        assert!(is_anywhere(vec![Err(NoReply::Timeout), reply(AckStatus::Ok)]).unwrap());
        assert!(!is_anywhere(vec![reply(AckStatus::NotFound), reply(AckStatus::NotFound)]).unwrap());
        let half = is_anywhere(vec![reply(AckStatus::NotFound), Err(NoReply::LinkLost)]);
        assert!(matches!(half, Err(AskError::LinkLost)));
    }

    #[test]
    fn an_order_is_done_when_all_have_answered() {
        assert!(is_done_everywhere(vec![reply(AckStatus::NotFound), reply(AckStatus::Ok)]).unwrap());
        let half = is_done_everywhere(vec![reply(AckStatus::Ok), Err(NoReply::Timeout)]);
        assert!(matches!(half, Err(AskError::Timeout)));
        let failed = is_done_everywhere(vec![reply(AckStatus::InternalServerError)]);
        assert!(matches!(failed, Err(AskError::Failed(text)) if text == "InternalServerError"));
    }
}
