//! Why a session is over, as metrics, logs and client connections are told.

use std::time::Duration;

use tokio::time::timeout;
use trunkline_link::{LinkEnd, LinkWriter};
use trunkline_protocol::cause::Cause as CloseCause;
use trunkline_protocol::service::{Role, SessionEndReason};

use crate::metrics::SessionCloseReason;
use crate::upstream::UpstreamWebSocket;

/// A far end that is gone is not waited for when a link is closed.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Debug)]
pub(super) struct SessionOver {
    pub(super) cause: SessionCloseReason,
    pub(super) reason: String,
    /// Where the app server can still be told.
    pub(super) socket: Option<LinkWriter<UpstreamWebSocket>>,
}

/// How the carrying over a socket ended.
#[derive(Debug)]
pub(super) enum CarryEnd {
    /// The socket is lost, for this reason; another one may go on.
    Lost(String),
    Over(SessionOver),
}

impl SessionOver {
    fn new(cause: SessionCloseReason, reason: impl ToString) -> Self {
        Self { cause, reason: reason.to_string(), socket: None }
    }

    pub(super) fn retired() -> Self {
        Self::of(&LinkEnd::Shutdown)
    }

    pub(super) fn unknown() -> Self {
        Self::new(SessionCloseReason::Unknown, "the app server does not know it any more")
    }

    /// The end of a session without a socket, whose app server has left in order: all that it had is ended.
    pub(super) fn left() -> Self {
        Self::new(SessionCloseReason::Farewell, "the app server has said goodbye over its other links")
    }

    /// An end that the session decided itself.
    pub(super) fn decided(cause: SessionEndReason) -> Self {
        Self::of(&LinkEnd::Over(cause))
    }

    /// A socket's end with which the session ends.
    pub(super) fn of(end: &LinkEnd) -> Self {
        let cause = match end {
            LinkEnd::Shutdown => SessionCloseReason::Retired,
            LinkEnd::Goodbye(_) => SessionCloseReason::Farewell,
            LinkEnd::Over(SessionEndReason::NotResumable) => SessionCloseReason::NotResumable,
            LinkEnd::Over(_) => SessionCloseReason::WindowPassed,
            _ => SessionCloseReason::Broken,
        };
        Self::new(cause, end.reason(Role::Proxy))
    }

    /// A socket's end, of a link whose session is no longer than that.
    pub(super) fn of_dialled_in(end: &LinkEnd) -> Self {
        let over = Self::of(end);
        let is_lost = end.is_resumable();
        Self { cause: if is_lost { SessionCloseReason::NotResumable } else { over.cause }, ..over }
    }

    /// Returns the cause for a client connection that can't go on at another app server.
    pub(super) fn of_connections(&self) -> CloseCause {
        if self.is_planned() { CloseCause::AppStopped } else { CloseCause::LinkLost }
    }

    pub(super) fn is_planned(&self) -> bool {
        matches!(self.cause, SessionCloseReason::Retired | SessionCloseReason::Farewell)
    }

    /// Tells the app server, if it is still there.
    pub(super) async fn say_goodbye(self) {
        if let Some(mut socket) = self.socket {
            drop(timeout(GOODBYE_TIMEOUT, socket.close(LinkEnd::goodbye())).await);
        }
    }
}
