//! Reasons for the end of a session, for metrics, logs and client connections.

use trunkline_link::{LinkEnd, LinkWriter};
use trunkline_protocol::cause::Cause as CloseCause;
use trunkline_protocol::service::{Role, SessionEndReason};

use crate::engine::upstream::UpstreamWebSocket;
use crate::ground::metrics::SessionCloseReason;

#[derive(Debug)]
pub(crate) struct SessionOver {
    pub(crate) cause: SessionCloseReason,
    pub(crate) reason: String,
    /// Socket on which the app server can still be notified.
    pub(super) socket: Option<LinkWriter<UpstreamWebSocket>>,
}

impl SessionOver {
    fn new(cause: SessionCloseReason, reason: impl ToString) -> Self {
        Self { cause, reason: reason.to_string(), socket: None }
    }

    pub(super) fn retired() -> Self {
        Self::from_end(&LinkEnd::Shutdown)
    }

    pub(super) fn unknown() -> Self {
        Self::new(SessionCloseReason::Unknown, "the session is unknown to the app server")
    }

    /// End without a socket, after the app server shut down gracefully and closed its clients.
    pub(super) fn left() -> Self {
        Self::new(SessionCloseReason::Farewell, "the app server has closed its other links")
    }

    pub(super) fn decided(cause: SessionEndReason) -> Self {
        Self::from_end(&LinkEnd::Over(cause))
    }

    /// Session end due to the end of its socket.
    pub(super) fn from_end(end: &LinkEnd) -> Self {
        let cause = match end {
            LinkEnd::Shutdown => SessionCloseReason::Retired,
            LinkEnd::Goodbye(_) => SessionCloseReason::Farewell,
            LinkEnd::Over(SessionEndReason::NotResumable) => SessionCloseReason::NotResumable,
            LinkEnd::Over(_) => SessionCloseReason::WindowPassed,
            _ => SessionCloseReason::Broken,
        };
        Self::new(cause, end.reason(Role::Proxy))
    }

    /// End of a socket and, without resumption, of its session.
    pub(crate) fn of_dialled_in(end: &LinkEnd) -> Self {
        let over = Self::from_end(end);
        let is_lost = end.is_resumable();
        Self { cause: if is_lost { SessionCloseReason::NotResumable } else { over.cause }, ..over }
    }

    /// Close cause for clients that can't continue at another app server.
    pub(crate) fn of_connections(&self) -> CloseCause {
        if self.is_planned() { CloseCause::AppStopped } else { CloseCause::LinkLost }
    }

    pub(crate) fn is_planned(&self) -> bool {
        matches!(self.cause, SessionCloseReason::Retired | SessionCloseReason::Farewell)
    }

    /// Sends a farewell if the app server is still connected.
    pub(super) async fn send_goodbye(self) {
        if let Some(mut socket) = self.socket {
            socket.close_socket(LinkEnd::goodbye()).await;
        }
    }
}
