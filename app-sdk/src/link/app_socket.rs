//! WebSocket of a link, either accepted from a proxy or dialled, and the peer behind it: a slot in the pool of a node,
//! or a dialled service.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use trunkline_link::{LinkMessage, LinkOutbox, ReceivedMessage};
use trunkline_protocol::service::Ping;

use crate::connection::LinkId;

/// Byte stream below a dialled WebSocket: TCP or TLS.
pub(crate) trait DialledStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> DialledStream for T {}

pub(crate) type DialledSocket = WebSocketStream<Box<dyn DialledStream>>;

pub(crate) enum AppSocket {
    Accepted(WebSocket),
    Dialled(DialledSocket),
}

pub(crate) type LinkSocket = trunkline_link::LinkSocket<AppSocket>;
pub(crate) type LinkReader = trunkline_link::LinkReader<AppSocket>;
pub(crate) type LinkWriter = trunkline_link::LinkWriter<AppSocket>;

type SocketError = Box<dyn Error + Send + Sync>;

impl Stream for AppSocket {
    type Item = Result<Message, SocketError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Accepted(socket) => {
                let next = ready!(Pin::new(socket).poll_next(cx));
                Poll::Ready(next.map(|message| message.map_err(Into::into)))
            }
            Self::Dialled(socket) => {
                let next = ready!(Pin::new(socket).poll_next(cx));
                Poll::Ready(next.map(|message| message.map(received).map_err(Into::into)))
            }
        }
    }
}

impl Sink<Message> for AppSocket {
    type Error = SocketError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        match self.get_mut() {
            Self::Accepted(socket) => Pin::new(socket).poll_ready(cx).map_err(Into::into),
            Self::Dialled(socket) => Pin::new(socket).poll_ready(cx).map_err(Into::into),
        }
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), SocketError> {
        match self.get_mut() {
            Self::Accepted(socket) => Pin::new(socket).start_send(message).map_err(Into::into),
            Self::Dialled(socket) => Pin::new(socket).start_send(sent(message)).map_err(Into::into),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        match self.get_mut() {
            Self::Accepted(socket) => Pin::new(socket).poll_flush(cx).map_err(Into::into),
            Self::Dialled(socket) => Pin::new(socket).poll_flush(cx).map_err(Into::into),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        match self.get_mut() {
            Self::Accepted(socket) => Pin::new(socket).poll_close(cx).map_err(Into::into),
            Self::Dialled(socket) => Pin::new(socket).poll_close(cx).map_err(Into::into),
        }
    }
}

impl fmt::Debug for AppSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted(_) => "AppSocket::Accepted",
            Self::Dialled(_) => "AppSocket::Dialled",
        })
    }
}

/// Converts a message to axum's type without copying its bytes. Links refuse text, so its contents are dropped.
fn received(message: tungstenite::Message) -> Message {
    match LinkMessage::into_received(message) {
        ReceivedMessage::Piece(piece) => Message::Binary(piece),
        ReceivedMessage::Close(Some((code, reason))) => LinkMessage::close_frame(code, reason),
        ReceivedMessage::Close(None) => Message::Close(None),
        ReceivedMessage::Text => Message::Text(String::new().into()),
    }
}

/// Converts axum's message type for sending, without copying its bytes.
fn sent(message: Message) -> tungstenite::Message {
    match LinkMessage::into_received(message) {
        ReceivedMessage::Piece(piece) => LinkMessage::binary(piece),
        ReceivedMessage::Close(Some((code, reason))) => LinkMessage::close_frame(code, reason),
        // A link sends nothing else.
        ReceivedMessage::Close(None) | ReceivedMessage::Text => LinkMessage::binary(Bytes::new()),
    }
}

/// A slot in the pool of one node process for one hub. The node name is for display: two nodes may share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) hub: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
    pub(crate) slot: u32,
}

impl SlotKey {
    /// Whether both are slots of one node process for one hub.
    pub(super) fn shares_pool(&self, other: &Self) -> bool {
        self.hub == other.hub && self.boot == other.boot && self.node == other.node
    }

    /// Whether both belong to different node processes with the same name.
    pub(super) fn shares_name(&self, other: &Self) -> bool {
        self.node == other.node && self.boot != other.boot
    }
}

/// Handler of the pings of a service, apart from keep-alive.
pub(crate) trait ServicePings: Send + Sync {
    /// Handles a ping from a server connection. Replies go into its `outbox`.
    fn handle_ping(&self, link: LinkId, outbox: &LinkOutbox, ping: &Ping);
}

/// Service as the peer of a dialled link.
#[derive(Clone)]
pub(crate) struct Service {
    /// Name of the service, the same for all its server connections.
    pub(crate) name: Arc<str>,
    pub(crate) pings: Arc<dyn ServicePings>,
}
