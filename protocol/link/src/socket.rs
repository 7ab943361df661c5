//! The two halves of a link, which receive and send chunks of frames.
//!
//! Chunks are WebSocket messages over the network, and passed in memory between an app and its embedded node, and in
//! tests.
//!
//! Links abstract from WebSocket libraries: they need messages with chunks of frames, and close frames.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trunkline_protocol::service::{FrameBuffer, ServiceMessage};
use trunkline_protocol::wire::SESSION_OVER_CODE;

use super::LinkEnd;

/// Timeout of a close frame: the peer may be gone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    fn close_frame(code: u16, reason: String) -> Self;

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

        fn close_frame(code: u16, reason: String) -> Self {
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

        fn close_frame(code: u16, reason: String) -> Self {
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

/// Maximum number of chunks waiting in memory, each collected in one batch.
const PIECES_MAX: usize = 16;

/// Both halves of a link.
#[derive(Debug)]
pub struct LinkSocket<S: LinkWebSocket> {
    /// Chunks from the peer.
    pub reader: LinkReader<S>,
    /// Chunks to the peer.
    pub writer: LinkWriter<S>,
}

/// The reading half of a link.
#[derive(Debug)]
pub struct LinkReader<S: LinkWebSocket> {
    pieces: PieceSource<S>,
    /// Bytes that were read but not delivered: frames may follow the handshake immediately.
    pub(super) frames: FrameBuffer,
}

/// The writing half of a link.
#[derive(Debug)]
pub struct LinkWriter<S: LinkWebSocket> {
    pieces: PieceTarget<S>,
}

#[derive(Debug)]
enum PieceSource<S: LinkWebSocket> {
    Network(SplitStream<S>),
    Memory(mpsc::Receiver<Bytes>),
}

#[derive(Debug)]
enum PieceTarget<S: LinkWebSocket> {
    Network(SplitSink<S, S::Message>),
    Memory(mpsc::Sender<Bytes>),
}

/// Peer of a link in memory.
#[derive(Debug)]
pub struct MemoryLink {
    /// Chunks from the local end.
    pub reader: mpsc::Receiver<Bytes>,
    /// Chunks to the local end.
    pub writer: mpsc::Sender<Bytes>,
}

impl<S: LinkWebSocket> LinkSocket<S> {
    /// Creates a link over a WebSocket.
    #[must_use]
    pub fn network(socket: S) -> Self {
        let (sink, stream) = socket.split();
        Self::new(PieceSource::Network(stream), PieceTarget::Network(sink))
    }

    /// Creates a link in memory, with its peer.
    #[must_use]
    pub fn memory() -> (Self, MemoryLink) {
        let ((up, far_reader), (far_writer, down)) = (mpsc::channel(PIECES_MAX), mpsc::channel(PIECES_MAX));
        let near = Self::from(MemoryLink { reader: down, writer: up });
        (near, MemoryLink { reader: far_reader, writer: far_writer })
    }

    fn new(source: PieceSource<S>, target: PieceTarget<S>) -> Self {
        let reader = LinkReader { pieces: source, frames: FrameBuffer::default() };
        Self { reader, writer: LinkWriter { pieces: target } }
    }
}

impl<S: LinkWebSocket> From<MemoryLink> for LinkSocket<S> {
    fn from(link: MemoryLink) -> Self {
        Self::new(PieceSource::Memory(link.reader), PieceTarget::Memory(link.writer))
    }
}

impl<S: LinkWebSocket> LinkReader<S> {
    /// Waits for more data. Cancel-safe. Fails if the socket has ended.
    pub async fn fill(&mut self) -> Result<(), LinkEnd> {
        let piece = match &mut self.pieces {
            PieceSource::Memory(pieces) => pieces.recv().await.ok_or(LinkEnd::Closed)?,
            PieceSource::Network(stream) => {
                let message = stream.next().await.ok_or(LinkEnd::Closed)?;
                match message.map_err(|error| LinkEnd::Socket(error.into()))?.into_received() {
                    ReceivedMessage::Piece(piece) => piece,
                    ReceivedMessage::Close(Some((SESSION_OVER_CODE, words))) => return Err(LinkEnd::Goodbye(words)),
                    ReceivedMessage::Close(_) => return Err(LinkEnd::Closed),
                    ReceivedMessage::Text => return Err(LinkEnd::Text),
                }
            }
        };
        // A ping has no bytes.
        if !piece.is_empty() {
            self.frames.push(piece);
        }
        Ok(())
    }

    /// Waits for the next message; `None` if its type is unknown. Cancel-safe. Fails if the socket has ended or the
    /// data is invalid.
    pub async fn next_message(&mut self) -> Result<Option<ServiceMessage>, LinkEnd> {
        loop {
            if let Some(body) = self.frames.next_body()? {
                return Ok(ServiceMessage::decode(&body)?);
            }
            self.fill().await?;
        }
    }
}

impl<S: LinkWebSocket> LinkWriter<S> {
    /// Sends a chunk. Fails if the peer is gone.
    pub async fn send(&mut self, piece: Bytes) -> Result<(), LinkEnd> {
        match &mut self.pieces {
            PieceTarget::Memory(pieces) => pieces.send(piece).await.map_err(|_| LinkEnd::Closed),
            PieceTarget::Network(sink) => {
                sink.send(S::Message::binary(piece)).await.map_err(|error| LinkEnd::Socket(error.into()))
            }
        }
    }

    /// Sends messages in one chunk. Fails if the peer is gone.
    pub async fn send_messages(&mut self, messages: &[ServiceMessage]) -> Result<(), LinkEnd> {
        let mut piece = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut piece));
        self.send(piece.freeze()).await
    }

    /// Sends a close frame if the peer still reads; waits a second at most. In memory, dropping the link is enough.
    pub async fn close_socket(&mut self, (code, reason): (u16, String)) {
        if let PieceTarget::Network(sink) = &mut self.pieces {
            // Fails if the peer has already closed.
            drop(timeout(CLOSE_TIMEOUT, sink.send(S::Message::close_frame(code, reason))).await);
        }
    }
}
