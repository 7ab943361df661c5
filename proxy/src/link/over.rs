//! How the carrying over a socket ends, and why a session is over.

use std::time::Duration;

use tokio::time::timeout;
use trunkline_protocol::cause::Cause as Ending;
use trunkline_protocol::service::SessionEndReason;

use crate::metrics::SessionCloseReason;
use crate::upstream::{LinkSocketError, LinkWriter};

/// A peer that is gone is not waited for when a link is closed.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Why no more is carried over a socket.
#[derive(Debug)]
pub(super) enum End {
    /// The socket is lost; another one may go on.
    Lost(String),
    /// The session is over.
    Over(Over),
}

/// Why a session is over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) cause: SessionCloseReason,
    pub(super) reason: String,
    /// Where the app server can still be told.
    pub(super) socket: Option<LastSocket>,
}

/// A socket that is about to be closed.
#[derive(Debug)]
pub(super) struct LastSocket(pub(super) LinkWriter);

impl Over {
    fn new(cause: SessionCloseReason, reason: impl ToString) -> Self {
        Self { cause, reason: reason.to_string(), socket: None }
    }

    pub(super) fn retired() -> Self {
        Self::new(SessionCloseReason::Retired, "its pool is given up")
    }

    pub(super) fn unknown() -> Self {
        Self::new(SessionCloseReason::Unknown, "the app server does not know it any more")
    }

    pub(super) fn broken(problem: impl ToString) -> Self {
        Self::new(SessionCloseReason::Broken, problem)
    }

    /// What the session decided itself.
    pub(super) fn decided(cause: SessionEndReason) -> Self {
        let end = if cause == SessionEndReason::NotResumable {
            SessionCloseReason::NotResumable
        } else {
            SessionCloseReason::WindowPassed
        };
        Self::new(end, cause)
    }

    /// What it means for a client connection that can't go on at another app server.
    pub(super) fn of_connections(&self) -> Ending {
        match self.cause {
            SessionCloseReason::Retired | SessionCloseReason::Farewell => Ending::AppStopped,
            _ => Ending::LinkLost,
        }
    }

    pub(super) fn is_planned(&self) -> bool {
        matches!(self.cause, SessionCloseReason::Retired | SessionCloseReason::Farewell)
    }
}

impl From<LinkSocketError> for End {
    fn from(error: LinkSocketError) -> Self {
        match error {
            LinkSocketError::Farewell(_) => Self::Over(Over::new(SessionCloseReason::Farewell, error)),
            LinkSocketError::Text => Self::Over(Over::broken(error)),
            LinkSocketError::Closed | LinkSocketError::Socket(_) => Self::Lost(error.to_string()),
        }
    }
}

impl LastSocket {
    /// Tells the app server, if it is still there.
    pub(super) async fn say_goodbye(mut self) {
        drop(timeout(LAST_WORDS_TIMEOUT, self.0.say_goodbye()).await);
    }
}
