//! Abstraction of WebSocket libraries for links: messages with chunks of frames, and close frames.

use std::error::Error;

use bytes::Bytes;
use futures_util::{Sink, Stream};

/// A WebSocket of any library.
pub trait LinkWebSocket:
    Stream<Item = Result<<Self as LinkWebSocket>::Message, <Self as LinkWebSocket>::Failure>>
    + Sink<<Self as LinkWebSocket>::Message, Error = <Self as LinkWebSocket>::Failure>
    + Unpin
{
    /// Message type of the WebSocket library.
    type Message: LinkMessage;
    /// Error type of the WebSocket library.
    type Failure: Into<Box<dyn Error + Send + Sync>>;
}

impl<S, M, E> LinkWebSocket for S
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    M: LinkMessage,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Message = M;
    type Failure = E;
}

/// A WebSocket message of any library.
pub trait LinkMessage: std::fmt::Debug + Sized {
    /// Creates a binary message, which carries frames.
    fn binary(piece: Bytes) -> Self;

    /// Creates a close frame with a code.
    fn close(code: u16, reason: String) -> Self;

    /// Interprets the message for a link.
    fn into_received(self) -> ReceivedMessage;
}

/// Meaning of a WebSocket message for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceivedMessage {
    /// Frames or parts of them. Empty for a ping, which the library answers and which shows that the peer is alive.
    Piece(Bytes),
    /// The peer closes with this code and reason.
    Close(Option<(u16, String)>),
    /// Text, which is not allowed on a link.
    Text,
}

#[cfg(feature = "axum")]
mod of_axum {
    use axum::extract::ws::{CloseFrame, Message};

    use super::{Bytes, LinkMessage, ReceivedMessage};

    impl LinkMessage for Message {
        fn binary(piece: Bytes) -> Self {
            Self::Binary(piece)
        }

        fn close(code: u16, reason: String) -> Self {
            Self::Close(Some(CloseFrame { code, reason: reason.into() }))
        }

        fn into_received(self) -> ReceivedMessage {
            match self {
                Self::Binary(piece) => ReceivedMessage::Piece(piece),
                Self::Ping(_) | Self::Pong(_) => ReceivedMessage::Piece(Bytes::new()),
                Self::Close(close) => {
                    ReceivedMessage::Close(close.map(|close| (close.code, close.reason.as_str().to_owned())))
                }
                Self::Text(_) => ReceivedMessage::Text,
            }
        }
    }
}

#[cfg(feature = "tungstenite")]
mod of_tungstenite {
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;

    use super::{Bytes, LinkMessage, ReceivedMessage};

    impl LinkMessage for Message {
        fn binary(piece: Bytes) -> Self {
            Self::Binary(piece)
        }

        fn close(code: u16, reason: String) -> Self {
            Self::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
        }

        fn into_received(self) -> ReceivedMessage {
            match self {
                Self::Binary(piece) => ReceivedMessage::Piece(piece),
                Self::Ping(_) | Self::Pong(_) => ReceivedMessage::Piece(Bytes::new()),
                Self::Close(close) => {
                    ReceivedMessage::Close(close.map(|close| (close.code.into(), close.reason.as_str().to_owned())))
                }
                Self::Text(_) | Self::Frame(_) => ReceivedMessage::Text,
            }
        }
    }
}
