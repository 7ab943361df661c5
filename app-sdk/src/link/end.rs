//! Why a socket of a link ended, and what that means for its session.

use axum::extract::ws::close_code;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{FrameError, ServiceMessageError, SessionEndReason as SessionCause, SessionError};

use crate::connection::ConnectionClose;

/// What an app is told whose connections went with their link.
const LOST: &str = "The link to the proxy was lost.";

/// Why a socket ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    #[error("the proxy closed it")]
    Closed,
    #[error("the proxy said goodbye")]
    Farewell,
    #[error("a newer link took its slot")]
    Replaced,
    #[error("this app server shuts down")]
    Shutdown,
    #[error("socket failed")]
    Socket(#[source] axum::Error),
    #[error("the proxy was silent for too long")]
    Silent,
    #[error("the proxy did not read for too long")]
    Stuck,
    #[error("the session is over: {0}")]
    Over(SessionCause),
    #[error("the proxy did not answer the handshake in time")]
    HandshakeTimeout,
    #[error("the proxy refused the handshake: {0}")]
    HandshakeRefused(String),
    #[error("the proxy sent {0} before it answered the handshake")]
    HandshakeMissing(&'static str),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] ServiceMessageError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("a WebSocket message was text; links are binary")]
    Text,
}

impl LinkEnd {
    /// Whether the session may go on over another socket. What breaks the protocol would only be replayed.
    pub(super) fn is_resumable(&self) -> bool {
        match self {
            LinkEnd::Closed
            | LinkEnd::Replaced
            | LinkEnd::Socket(_)
            | LinkEnd::Silent
            | LinkEnd::Stuck
            | LinkEnd::HandshakeTimeout => true,
            LinkEnd::Farewell
            | LinkEnd::Shutdown
            | LinkEnd::Over(_)
            | LinkEnd::HandshakeRefused(_)
            | LinkEnd::HandshakeMissing(_)
            | LinkEnd::Frame(_)
            | LinkEnd::Message(_)
            | LinkEnd::Session(_)
            | LinkEnd::Text => false,
        }
    }

    /// Whether people expect it.
    pub(super) fn is_planned(&self) -> bool {
        matches!(self, LinkEnd::Closed | LinkEnd::Farewell | LinkEnd::Shutdown)
    }

    /// What `on_disconnected` is told when the session ends with it: a planned stop is no error.
    pub(super) fn of_connections(&self) -> ConnectionClose {
        match self {
            LinkEnd::Shutdown => ConnectionClose::new(Cause::AppStopped),
            LinkEnd::Farewell => ConnectionClose::with_error(Cause::Drained, LOST),
            _ => ConnectionClose::with_error(Cause::LinkLost, LOST),
        }
    }

    /// What the proxy is told in a few words, if it still listens.
    pub(super) fn goodbye(&self) -> Option<(u16, String)> {
        match self {
            LinkEnd::Closed | LinkEnd::Farewell | LinkEnd::Socket(_) | LinkEnd::Stuck => None,
            LinkEnd::Shutdown | LinkEnd::Over(_) => Some((close_code::AWAY, self.to_string())),
            LinkEnd::Replaced | LinkEnd::Silent | LinkEnd::HandshakeTimeout => {
                Some((close_code::NORMAL, self.to_string()))
            }
            LinkEnd::Text => Some((close_code::UNSUPPORTED, self.to_string())),
            _ => Some((close_code::PROTOCOL, "the link protocol was broken".to_owned())),
        }
    }
}
