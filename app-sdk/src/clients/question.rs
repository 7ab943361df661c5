//! Queries and commands that proxies acknowledge, sent to several proxies concurrently, and their combined answers.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
        core.outbound.metrics.questions_refused.inc();
        return Err(AskError::TooManyQuestions(WAITING_MAX));
    };
    Ok(query_all(core, nodes, message).await?)
}

async fn query_one(core: &HubCore, node: &Arc<Node>, message: &impl Fn(i64) -> ServiceMessage) -> ProxyReply {
    let mut ack = core.acks.expect(node);
    let frame = message(ack.id).to_frame();
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

/// Combined result of a query to all proxies, with the time of the query and the proxies that did not reply.
///
/// The value, to which this dereferences, lacks the clients of proxies that did not reply in time.
///
/// ```no_run
/// # async fn f(handle: trunkline::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let count = handle.hub("chat")?.groups().count("kitchen").await?;
/// match count.is_complete() {
///     true => println!("{} in the kitchen", *count),
///     false => println!("at least {} in the kitchen; {} proxies are silent", *count, count.proxies_missing()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Answer<T> {
    value: T,
    as_of: SystemTime,
    proxies: usize,
    missing: Missing,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Missing {
    count: usize,
    names: Vec<String>,
}

impl Missing {
    /// Proxies that did not reply to earlier queries of the same list. Only their number is known.
    pub(super) fn unnamed(count: usize) -> Self {
        Self { count, names: Vec::new() }
    }

    pub(super) fn add_node(&mut self, name: &str) {
        self.count += 1;
        self.names.push(name.to_owned());
    }
}

impl<T> Answer<T> {
    /// Combines the replies of `answered` proxies. Fails with the error of a proxy if no proxy replied.
    pub(super) fn of_any(
        value: T,
        as_of: SystemTime,
        (answered, missing): (usize, Missing),
        failed: Option<AskError>,
    ) -> Result<Self, AskError> {
        match failed {
            Some(error) if answered == 0 => Err(error),
            _ => Ok(Self::new(value, as_of, answered, missing)),
        }
    }

    pub(super) fn new(value: T, as_of: SystemTime, proxies: usize, missing: Missing) -> Self {
        Self { value, as_of, proxies, missing }
    }

    /// Returns the value only.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), as_of: self.as_of, proxies: self.proxies, missing: self.missing }
    }

    /// Time of the query. The value is at least this recent.
    #[must_use]
    pub fn as_of(&self) -> SystemTime {
        self.as_of
    }

    /// Time since the query: the maximum age of the value.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.as_of.elapsed().unwrap_or_default()
    }

    /// Number of proxies that replied.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.proxies
    }

    /// Number of proxies that did not reply: too slow, disconnected, or too old to support the query.
    #[must_use]
    pub fn proxies_missing(&self) -> usize {
        self.missing.count
    }

    /// Names (`--node-name`) of the proxies that did not reply. In a list [resumed](crate::Members::resume) from a
    /// token, earlier ones are only [counted](Self::proxies_missing).
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing.names
    }

    /// Whether all proxies replied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.count == 0
    }
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
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
