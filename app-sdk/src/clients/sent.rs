//! Outcome of a send: which proxies took it, and whether they have it.
//!
//! A send records nothing for this but the proxies that it went to, and a mark behind which losses of links count.
//! Whoever asks waits until each proxy has acknowledged all that was queued for it by then, which links do anyway.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time;

use crate::node::{DeliveryError, LossMark, Node};

/// Longest wait for acknowledgements, unless the caller says otherwise: half as much again as the default resume
/// window, so that a link that was cut has come back by then, or is lost.
const ACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(15);

/// Outcome of a send: queued at the proxies, and perhaps [acknowledged](Self::acknowledged) by them.
#[derive(Debug, Clone)]
pub struct Sent {
    proxies: usize,
    carriers: Carriers,
    since: LossMark,
}

/// Proxies that a send went to, in the form in which the send has them.
#[derive(Debug, Clone)]
pub(super) enum Carriers {
    None,
    One(Arc<Node>),
    Some(Vec<Arc<Node>>),
    All(Arc<[Arc<Node>]>),
}

/// Error of a send that not every proxy has acknowledged: the clients of these may not get the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAcknowledged {
    /// No proxy took the message: none is linked, or the one client that it was for has gone.
    #[error("no proxy took the message")]
    NoProxy,
    /// Some proxies may not have the message; all others have it.
    #[error("not acknowledged by {}", Listed(.0))]
    Proxies(Vec<(String, NotAcknowledgedReason)>),
}

/// Reason why a proxy, which is beside it by its name, is not known to have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAcknowledgedReason {
    /// A link was lost for good: the proxy has crashed, or was cut off for longer than its resume window.
    #[error("its link was lost")]
    LinkLost,
    /// The time is up; the proxy may still get the message.
    #[error("it did not answer in time")]
    Timeout,
    /// A service that was dialled acknowledges no messages.
    #[error("a service that was dialled acknowledges no messages")]
    Service,
}

struct Listed<'a>(&'a [(String, NotAcknowledgedReason)]);

impl Sent {
    pub(super) fn new(proxies: usize, carriers: Carriers, since: LossMark) -> Self {
        Self { proxies, carriers, since }
    }

    /// Number of proxies that took the message.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.proxies
    }

    /// Waits until all proxies that took the message have acknowledged it, at most 15 s. Returns their number.
    ///
    /// A proxy acknowledges what it has read from its link and given to its clients' queues, 100 ms later at most. From
    /// then on only its own crash, or what befalls the client, can lose the message. A link that is cut meanwhile sends
    /// the message again when it is back. So an outbox marks a row as told behind this wait and not before:
    ///
    /// ```
    /// # trait Outbox { async fn next(&self) -> Option<(u64, String)>; async fn mark_as_told(&self, number: u64); }
    /// # async fn f(news: trunkline::HubHandle, outbox: impl Outbox) -> Result<(), Box<dyn std::error::Error>> {
    /// while let Some((number, text)) = outbox.next().await {
    ///     news.clients().all().send("News", (number, text)).await?.acknowledged().await?;
    ///     outbox.mark_as_told(number).await;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A row that fails is sent again, so clients may get it twice: they tell by its number. An outbox with many rows
    /// sends one after the other, keeps each `Sent`, and waits for these afterwards: they are acknowledged together.
    ///
    /// A node inside the app has a message when it is in the node's hands. A
    /// [service that is dialled](crate::Server::dial) acknowledges nothing, so there the result is an error. No client
    /// is waited for: one that is away or slow may still miss what its proxy has.
    ///
    /// # Errors
    /// When no proxy took the message, or not all are known to have it; [`NotAcknowledged`] names these.
    pub async fn acknowledged(&self) -> Result<usize, NotAcknowledged> {
        self.acknowledged_within(ACKNOWLEDGED_TIMEOUT).await
    }

    /// Waits as [`acknowledged`](Self::acknowledged) does, at most for this time.
    ///
    /// # Errors
    /// As those of [`acknowledged`](Self::acknowledged).
    pub async fn acknowledged_within(&self, timeout: Duration) -> Result<usize, NotAcknowledged> {
        if self.proxies == 0 {
            return Err(NotAcknowledged::NoProxy);
        }
        let waits = self.carriers.nodes().iter().map(|node| missing(node, self.since, timeout));
        let missing: Vec<_> = join_all(waits).await.into_iter().flatten().collect();
        if missing.is_empty() { Ok(self.proxies) } else { Err(NotAcknowledged::Proxies(missing)) }
    }
}

/// Waits until a proxy has a message. Returns its name, and the reason, if it is not known to.
async fn missing(node: &Node, since: LossMark, timeout: Duration) -> Option<(String, NotAcknowledgedReason)> {
    let reason = match time::timeout(timeout, node.delivered(since)).await {
        Ok(Ok(())) => return None,
        Ok(Err(DeliveryError::Lost)) => NotAcknowledgedReason::LinkLost,
        Ok(Err(DeliveryError::Unsupported)) => NotAcknowledgedReason::Service,
        Err(_) => NotAcknowledgedReason::Timeout,
    };
    Some((node.far_end().0.to_owned(), reason))
}

impl Carriers {
    /// Outcome of a send to one client: its proxy, if that took it.
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
