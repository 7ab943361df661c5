//! Result of a send.
//!
//! A send only records its proxies and a mark for detecting lost links. The wait for acknowledgement lasts until each
//! proxy has acknowledged everything queued for it so far.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::time;
use trunkline_protocol::service::RecordReply;

use crate::node::{DeliveryError, LossMark, Node};

/// Default timeout for acknowledgements: 1.5 times the default resume window, so that an interrupted link has either
/// resumed or failed by then.
const ACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(15);

/// Result of a send: the proxies at which it is queued, with an optional wait until they have
/// [acknowledged](Self::acknowledged) it.
#[derive(Debug, Clone)]
pub struct Sent {
    proxies: usize,
    carriers: Carriers,
    since: LossMark,
    /// Places of the message in records.
    positions: Vec<RecordedAt>,
    /// Proxies that have not confirmed a recorded message.
    missing: Vec<ByteString>,
}

/// Place of a message in the record of a group or user.
#[derive(Debug, Clone)]
struct RecordedAt {
    name: ByteString,
    position: ByteString,
}

/// Proxies of a send, as selected by the send.
#[derive(Debug, Clone)]
pub(super) enum Carriers {
    None,
    One(Arc<Node>),
    Some(Vec<Arc<Node>>),
    All(Arc<[Arc<Node>]>),
}

/// Error of a send that was not acknowledged by every proxy. Clients of the listed proxies may not receive the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAcknowledged {
    /// No proxy accepted the message: none is linked, or the single target client has disconnected.
    #[error("no proxy accepted the message")]
    NoProxy,
    /// Some proxies may not have the message; all others have it.
    #[error("not acknowledged by {}", Listed(.0))]
    Proxies(Vec<(String, NotAcknowledgedReason)>),
}

/// Reason why a proxy may not have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAcknowledgedReason {
    /// A link was lost: the proxy crashed, or was disconnected longer than its resume window.
    #[error("its link was lost")]
    LinkLost,
    /// Timeout. The proxy may still receive the message.
    #[error("it did not answer in time")]
    Timeout,
    /// Dialled services do not acknowledge messages.
    #[error("a dialled service does not acknowledge messages")]
    Service,
}

struct Listed<'a>(&'a [(String, NotAcknowledgedReason)]);

impl Sent {
    pub(super) fn new(proxies: usize, carriers: Carriers, since: LossMark) -> Self {
        Self { proxies, carriers, since, positions: Vec::new(), missing: Vec::new() }
    }

    /// Adds the answers for the message in records, by group or user.
    pub(super) fn with_records(mut self, appended: Vec<(ByteString, RecordReply)>) -> Self {
        for (name, reply) in appended {
            self.proxies = self.proxies.max(usize::try_from(reply.nodes).unwrap_or(usize::MAX)).max(1);
            self.missing.extend(reply.missing);
            self.positions.push(RecordedAt { name, position: reply.position });
        }
        self
    }

    /// Position of the message in the record of its [recorded](crate::Hub::history) group or user; `None` if it is not
    /// recorded.
    #[must_use]
    pub fn position(&self) -> Option<&str> {
        self.positions.first().map(|at| &*at.position)
    }

    /// Positions in the records of several groups or users, by name.
    pub fn positions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.positions.iter().map(|at| (&*at.name, &*at.position))
    }

    /// Number of proxies that accepted the message.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.proxies
    }

    /// Waits up to 15 s until all proxies that accepted the message have acknowledged it. Returns their number.
    ///
    /// Within 100 ms, a proxy acknowledges messages that it has put into its clients' queues. After that, only a crash
    /// of the proxy or a failure of the client connection can lose the message. An interrupted link resends the message
    /// when it resumes. So an outbox marks a row as sent only after this wait:
    ///
    /// ```
    /// # trait Outbox { async fn next(&self) -> Option<(u64, String)>; async fn mark_sent(&self, number: u64); }
    /// # async fn f(news: trunkline::HubHandle, outbox: impl Outbox) -> Result<(), Box<dyn std::error::Error>> {
    /// while let Some((number, text)) = outbox.next().await {
    ///     news.clients().all().send("News", (number, text)).await?.acknowledged().await?;
    ///     outbox.mark_sent(number).await;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// If the wait fails, the row is sent again, so clients should deduplicate by its number. Send many rows one after
    /// the other, keep each `Sent`, and wait afterwards: they are acknowledged together. A node embedded in the app
    /// accepts messages immediately. [Dialled services](crate::Server::dial) send no acknowledgements, which is an
    /// error here. A slow or disconnected client may still miss a message that its proxy has.
    ///
    /// # Errors
    /// If no proxy accepted the message, or some may not have it; [`NotAcknowledged`] lists these.
    pub async fn acknowledged(&self) -> Result<usize, NotAcknowledged> {
        self.acknowledged_within(ACKNOWLEDGED_TIMEOUT).await
    }

    /// Like [`acknowledged`](Self::acknowledged), with a custom timeout.
    ///
    /// # Errors
    /// The errors of [`acknowledged`](Self::acknowledged).
    pub async fn acknowledged_within(&self, timeout: Duration) -> Result<usize, NotAcknowledged> {
        if self.proxies == 0 {
            return Err(NotAcknowledged::NoProxy);
        }
        let waits = self.carriers.nodes().iter().map(|node| missing(node, self.since, timeout));
        let mut missing: Vec<_> = join_all(waits).await.into_iter().flatten().collect();
        missing.extend(self.missing.iter().map(|node| (node.to_string(), NotAcknowledgedReason::Timeout)));
        if missing.is_empty() { Ok(self.proxies) } else { Err(NotAcknowledged::Proxies(missing)) }
    }
}

/// Waits until a proxy has acknowledged a message. Otherwise returns its name and the reason.
async fn missing(node: &Node, since: LossMark, timeout: Duration) -> Option<(String, NotAcknowledgedReason)> {
    let reason = match time::timeout(timeout, node.delivered(since)).await {
        Ok(Ok(())) => return None,
        Ok(Err(DeliveryError::Lost)) => NotAcknowledgedReason::LinkLost,
        Ok(Err(DeliveryError::Unsupported)) => NotAcknowledgedReason::Service,
        Err(_) => NotAcknowledgedReason::Timeout,
    };
    Some((node.peer_name().0.to_owned(), reason))
}

impl Carriers {
    /// Result of a send to one client: its proxy, if the proxy accepted it.
    pub(super) fn one(node: Option<Arc<Node>>) -> (usize, Self) {
        node.map_or((0, Self::None), |node| (1, Self::One(node)))
    }

    fn nodes(&self) -> &[Arc<Node>] {
        match self {
            Self::None => &[],
            Self::One(node) => std::slice::from_ref(node),
            Self::Some(nodes) => nodes,
            Self::All(nodes) => nodes,
        }
    }
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (proxy, reason)) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{proxy} ({reason})")?;
        }
        Ok(())
    }
}
