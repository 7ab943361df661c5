//! Errors of a client's inbound data, with their causes and close codes.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{FramingError, SequenceError};

use crate::engine::transport::websocket::{CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, ProtocolError};

/// Reason to stop reading a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InboundError {
    #[error("WebSocket: {0}")]
    Transport(#[from] ProtocolError),
    /// Text of the official server, with the names of Trunkline's settings.
    #[error(
        "The maximum message size of {0}B was exceeded. The message size can be configured by Hub::message_max_bytes, and --message-max-bytes of proxies (of apps that dial in: --dial-in-message-max-bytes)."
    )]
    TooLarge(usize),
    #[error("{0}")]
    Framing(FramingError),
    #[error(
        "a message is larger than {0} bytes: see RawEndpoint::message_max_bytes, and --message-max-bytes of proxies"
    )]
    RawTooLarge(usize),
    #[error(
        "a compressed WebSocket message is larger than {0} bytes, 16 hub messages of the maximum size: see Hub::message_max_bytes, and --message-max-bytes of proxies (of apps that dial in: --dial-in-message-max-bytes)"
    )]
    InflatedTooLarge(usize),
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Sequence(#[from] SequenceError),
    #[error("{0}")]
    Message(String),
}

impl InboundError {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Transport(_) => Cause::WebsocketProtocol,
            Self::TooLarge(_) | Self::RawTooLarge(_) | Self::InflatedTooLarge(_) => Cause::MessageTooLarge,
            Self::Framing(_) | Self::Sequence(_) | Self::Message(_) => Cause::HubProtocol,
            Self::NotUtf8 => Cause::TextInvalid,
        }
    }

    /// Close code for a client of a raw endpoint.
    pub(super) fn raw_code(&self) -> u16 {
        match self {
            Self::Transport(_) | Self::Framing(_) | Self::Sequence(_) | Self::Message(_) => CLOSE_PROTOCOL_ERROR,
            Self::TooLarge(_) | Self::RawTooLarge(_) | Self::InflatedTooLarge(_) => CLOSE_TOO_LARGE,
            Self::NotUtf8 => CLOSE_NOT_UTF8,
        }
    }
}

impl From<FramingError> for InboundError {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::TooLarge { limit } => Self::TooLarge(limit),
            other => Self::Framing(other),
        }
    }
}
