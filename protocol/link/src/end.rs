//! Reasons why a link's socket or session ended, and how each end reacts.

use std::error::Error;

use trunkline_protocol::service::{FrameError, Role, ServiceMessageError, SessionEndReason, SessionError};
use trunkline_protocol::wire::{SESSION_OVER_CODE, SESSION_OVER_REASON};

const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_UNSUPPORTED: u16 = 1003;

/// Reason why a link's socket or session ended.
#[derive(Debug)]
pub enum LinkEnd {
    /// The peer closed the socket and may resume the session.
    Closed,
    /// The peer closed the socket and ended the session, with this text.
    Goodbye(String),
    /// The connection below the WebSocket failed.
    Socket(Box<dyn Error + Send + Sync>),
    /// The peer was silent for too long.
    Silent,
    /// The peer did not read for too long.
    Stuck,
    /// Another socket took the session, or another session the slot.
    Replaced,
    /// This end of the link shuts down gracefully.
    Shutdown,
    /// The session ended itself.
    Over(SessionEndReason),
    /// The handshake timed out.
    HandshakeTimeout,
    /// The handshake was refused with this text.
    HandshakeRefused(String),
    /// A different frame arrived instead of the handshake; its name, if any.
    HandshakeMissing(Option<&'static str>),
    /// Invalid bytes instead of a frame.
    Frame(FrameError),
    /// Frame with an invalid message.
    Message(ServiceMessageError),
    /// The peer contradicts the session.
    Session(SessionError),
    /// Text message instead of frames.
    Text,
}

impl LinkEnd {
    /// Whether the session may continue over another socket. Protocol violations would only be replayed.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Closed | Self::Socket(_) | Self::Silent | Self::Stuck | Self::Replaced | Self::HandshakeTimeout => {
                true
            }
            Self::Goodbye(_)
            | Self::Shutdown
            | Self::Over(_)
            | Self::HandshakeRefused(_)
            | Self::HandshakeMissing(_)
            | Self::Frame(_)
            | Self::Message(_)
            | Self::Session(_)
            | Self::Text => false,
        }
    }

    /// Reason for log lines of this end.
    #[must_use]
    pub fn reason(&self, role: Role) -> String {
        match role {
            Role::Proxy => self.reason_of_proxy(),
            Role::AppServer => self.reason_of_app_server(),
        }
    }

    fn reason_of_proxy(&self) -> String {
        match self {
            Self::Closed => "the app server closed the link".into(),
            Self::Goodbye(words) => format!("the app server closed the link: {words}"),
            Self::Socket(error) => error.to_string(),
            Self::Silent => "the app server is silent".into(),
            Self::Stuck => "the app server did not read for too long".into(),
            Self::Replaced => "the link was stopped".into(),
            Self::Shutdown => "the pool of links is closed".into(),
            Self::Over(cause) => cause.to_string(),
            Self::HandshakeTimeout => "the app server sent no handshake in time".into(),
            Self::HandshakeRefused(text) => text.clone(),
            Self::HandshakeMissing(name) => format!("the first frame is {}", name.unwrap_or("unknown")),
            Self::Frame(error) => error.to_string(),
            Self::Message(error) => error.to_string(),
            Self::Session(error) => error.to_string(),
            Self::Text => "the app server sent a text message; links are binary".into(),
        }
    }

    fn reason_of_app_server(&self) -> String {
        match self {
            Self::Closed => "the proxy closed the link".into(),
            Self::Goodbye(_) => "the proxy ended the session".into(),
            Self::Socket(_) => "socket failed".into(),
            Self::Silent => "the proxy was silent for too long".into(),
            Self::Stuck => "the proxy did not read for too long".into(),
            Self::Replaced => "a newer link took its slot".into(),
            Self::Shutdown => "this app server shuts down".into(),
            Self::Over(cause) => format!("the session is over: {cause}"),
            Self::HandshakeTimeout => "the proxy did not answer the handshake in time".into(),
            Self::HandshakeRefused(text) => format!("the proxy refused the handshake: {text}"),
            Self::HandshakeMissing(name) => {
                let name = name.unwrap_or("a message of an unknown type");
                format!("the proxy sent {name} before it answered the handshake")
            }
            Self::Frame(error) => error.to_string(),
            Self::Message(error) => error.to_string(),
            Self::Session(error) => error.to_string(),
            Self::Text => "a WebSocket message was text; links are binary".into(),
        }
    }

    /// Underlying error, for a separate log field.
    #[must_use]
    pub fn source(&self) -> Option<String> {
        match self {
            Self::Socket(error) => Some(error.to_string()),
            Self::Message(error) => error.source().map(ToString::to_string),
            _ => None,
        }
    }

    /// Code and text of this end's close frame; `None` if the peer no longer reads.
    #[must_use]
    pub fn close_frame(&self, role: Role) -> Option<(u16, String)> {
        if role == Role::Proxy {
            // A lost socket is simply dropped, so that the app server keeps the session.
            return (!self.is_resumable()).then(Self::goodbye);
        }
        match self {
            Self::Closed | Self::Goodbye(_) | Self::Socket(_) | Self::Stuck => None,
            Self::Shutdown | Self::Over(_) => Some((SESSION_OVER_CODE, self.reason(role))),
            Self::Replaced | Self::Silent | Self::HandshakeTimeout => Some((CLOSE_NORMAL, self.reason(role))),
            Self::Text => Some((CLOSE_UNSUPPORTED, self.reason(role))),
            _ => Some((CLOSE_PROTOCOL, "the link protocol was broken".to_owned())),
        }
    }

    /// Code and text of the close frame that ends a session.
    #[must_use]
    pub fn goodbye() -> (u16, String) {
        (SESSION_OVER_CODE, SESSION_OVER_REASON.to_owned())
    }
}

impl From<FrameError> for LinkEnd {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<ServiceMessageError> for LinkEnd {
    fn from(error: ServiceMessageError) -> Self {
        Self::Message(error)
    }
}

impl From<SessionError> for LinkEnd {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_session_is_a_goodbye() {
        let (lost, over) = (LinkEnd::Silent, LinkEnd::Over(SessionEndReason::WindowPassed));
        assert!(lost.is_resumable() && !over.is_resumable());
        assert_eq!(lost.close_frame(Role::Proxy), None);
        assert_eq!(over.close_frame(Role::Proxy), Some((1001, "the session is over".into())));
        assert_eq!(lost.close_frame(Role::AppServer).map(|(code, _)| code), Some(1000));
        assert_eq!(over.close_frame(Role::AppServer).map(|(code, _)| code), Some(1001));
    }

    #[test]
    fn each_end_names_the_other_one() {
        assert_eq!(LinkEnd::Closed.reason(Role::Proxy), "the app server closed the link");
        assert_eq!(LinkEnd::Closed.reason(Role::AppServer), "the proxy closed the link");
        let missing = LinkEnd::HandshakeMissing(Some("Ping"));
        assert_eq!(missing.reason(Role::Proxy), "the first frame is Ping");
        assert_eq!(missing.reason(Role::AppServer), "the proxy sent Ping before it answered the handshake");
    }
}
