//! Failed handshakes: reasons, and the resulting frames for the client.

use bytes::Bytes;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HandshakeError, HandshakeResponse, HubMessage, HubProtocol};
use trunkline_protocol::manifest::HubManifest;

use crate::engine::shard::{Content, message_frame};
use crate::engine::transport::websocket::{self, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, Opcode};

#[derive(Debug)]
pub(super) enum HandshakeFailure {
    /// The hub handshake is answered with this error.
    Refused(HandshakeError),
    /// The handshake is valid, but the app servers are gone or this node is draining. The client may retry.
    TryAgain(Content),
    /// Tokens of the user were revoked during the connect. The client may retry with a valid one.
    Revoked(Content),
    /// The client returned to a connection that no longer exists: it sends messages of this protocol without a
    /// handshake.
    Returned(HubProtocol),
    TimedOut,
    /// The client violated the transport protocol.
    Transport(String),
    /// The client closed its transport.
    ClientClosed,
    SocketEnded(Cause),
}

impl HandshakeFailure {
    /// Standard cause; `is_drained` if this node is draining.
    pub(super) fn cause(&self, is_drained: bool) -> Cause {
        match self {
            Self::Refused(HandshakeError::Canceled) => Cause::HandshakeTooLarge,
            Self::Refused(HandshakeError::Malformed { .. }) => Cause::HandshakeInvalid,
            Self::Refused(_) => Cause::HandshakeUnsupported,
            Self::TryAgain(_) if is_drained => Cause::Drained,
            Self::TryAgain(_) => Cause::NoAppServer,
            Self::Revoked(_) => Cause::TokenRevoked,
            Self::Returned(_) => Cause::IdUnknown,
            Self::TimedOut => Cause::HandshakeTimeout,
            Self::Transport(_) => Cause::WebsocketProtocol,
            Self::ClientClosed => Cause::ClientClosed,
            Self::SocketEnded(cause) => *cause,
        }
    }

    /// Detail for logs and history, if the cause is not sufficient.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Refused(HandshakeError::Malformed { detail }) => Some(detail.clone()),
            Self::Refused(error) => Some(error.to_string()),
            Self::Transport(detail) => Some(detail.clone()),
            _ => None,
        }
    }

    /// Whether the transport is closed or the socket has ended, so no close can be awaited.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::ClientClosed | Self::SocketEnded(_))
    }

    /// Last frames for the client: the handshake answer, if a request was read, and the transport's close.
    pub(super) fn frames(&self, settings: &HubManifest) -> Vec<Bytes> {
        let mut frames = Vec::new();
        match self {
            Self::SocketEnded(_) => return frames,
            Self::ClientClosed => {}
            Self::Transport(_) => {
                frames.push(websocket::close(CLOSE_PROTOCOL_ERROR));
                return frames;
            }
            Self::TimedOut => frames.push(answer(Some(HandshakeError::Canceled.to_string()))),
            Self::Refused(error) => {
                let text = match error {
                    HandshakeError::Malformed { detail } if settings.detailed_errors => {
                        format!("{error} InvalidDataException: {detail}")
                    }
                    other => other.to_string(),
                };
                frames.push(answer(Some(text)));
            }
            Self::TryAgain(Content::Raw) | Self::Revoked(Content::Raw) => {
                frames.push(websocket::close(CLOSE_GOING_AWAY));
                return frames;
            }
            Self::TryAgain(Content::Hub(protocol)) | Self::Revoked(Content::Hub(protocol)) => {
                frames.push(answer(None));
                frames.push(reconnect(*protocol));
            }
            Self::Returned(protocol) => {
                // The client ignores messages before a sequence number. With one not above its own, it starts over.
                frames.push(message_frame(*protocol, &HubMessage::Sequence { sequence_id: 1 }));
                frames.push(reconnect(*protocol));
            }
        }
        frames.push(websocket::close(CLOSE_NORMAL));
        frames
    }
}

impl From<HandshakeError> for HandshakeFailure {
    fn from(error: HandshakeError) -> Self {
        Self::Refused(error)
    }
}

/// Close message that allows the client to reconnect.
fn reconnect(protocol: HubProtocol) -> Bytes {
    message_frame(protocol, &HubMessage::Close(Close { error: None, allow_reconnect: true }))
}

fn answer(error: Option<String>) -> Bytes {
    websocket::frame(Opcode::Text, &HandshakeResponse { error }.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(failure: &HandshakeFailure) -> Vec<u8> {
        failure.frames(&HubManifest::new("chat", "/chat")).concat()
    }

    #[test]
    fn a_client_without_an_app_server_is_accepted_and_asked_to_reconnect() {
        let told = frames(&HandshakeFailure::TryAgain(Content::Hub(HubProtocol::Json)));
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(told.contains("{}\u{1e}") && told.contains("\"allowReconnect\":true"), "{told}");
        assert_eq!(frames(&HandshakeFailure::TryAgain(Content::Raw)), websocket::close(CLOSE_GOING_AWAY));
    }

    #[test]
    fn a_client_that_can_not_resume_is_asked_to_start_over_in_its_own_protocol() {
        let told = frames(&HandshakeFailure::Returned(HubProtocol::Json));
        let told = String::from_utf8_lossy(&told).into_owned();
        let (sequence, close) = (told.find("{\"type\":9,\"sequenceId\":1}"), told.find("\"allowReconnect\":true"));
        assert!(sequence < close && sequence.is_some() && !told.contains("error"), "{told}");
        let told = frames(&HandshakeFailure::Returned(HubProtocol::MessagePack));
        assert!(told.starts_with(b"\x82\x04\x03\x92\x09\x01\x82"), "{told:?}");
    }

    #[test]
    fn only_a_client_that_still_reads_is_answered() {
        assert_eq!(frames(&HandshakeFailure::SocketEnded(Cause::SocketReset)), b"");
        assert_eq!(frames(&HandshakeFailure::ClientClosed), websocket::close(CLOSE_NORMAL));
        assert_eq!(frames(&HandshakeFailure::Transport("bad".into())), websocket::close(CLOSE_PROTOCOL_ERROR));
        assert!(String::from_utf8_lossy(&frames(&HandshakeFailure::TimedOut)).contains("\"error\":"));
    }

    #[test]
    fn the_cause_of_a_missing_app_server_depends_on_the_drain() {
        let failure = HandshakeFailure::TryAgain(Content::Raw);
        assert_eq!((failure.cause(false), failure.cause(true)), (Cause::NoAppServer, Cause::Drained));
    }
}
