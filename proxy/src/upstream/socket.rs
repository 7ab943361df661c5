//! A link's two halves: whole pieces of frames in, whole pieces of frames out.
//!
//! Over the network they are WebSocket messages; between a node and the app that it is embedded in, they are handed
//! over in memory. Nobody above this file knows the difference.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Pieces that may wait in memory; each is what one end gathered in a turn.
const PIECES_MAX: usize = 16;

/// What a link over the network is read from and written to.
pub(super) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Both halves of an open link.
#[derive(Debug)]
pub(crate) struct LinkSocket {
    /// What the other end sends.
    pub reader: LinkReader,
    /// What the other end gets.
    pub writer: LinkWriter,
}

#[derive(Debug)]
pub(crate) enum LinkReader {
    Network(SplitStream<WebSocket>),
    Memory(mpsc::Receiver<Bytes>),
}

#[derive(Debug)]
pub(crate) enum LinkWriter {
    Network(SplitSink<WebSocket, Message>),
    Memory(mpsc::Sender<Bytes>),
}

/// The far end of a link in memory.
#[derive(Debug)]
pub struct MemoryLink {
    /// What the node sends.
    pub reader: mpsc::Receiver<Bytes>,
    /// What the node gets.
    pub writer: mpsc::Sender<Bytes>,
}

/// Why nothing more comes, or goes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LinkSocketError {
    /// The far end has ended it.
    #[error("the app server closed it")]
    Closed,
    /// The far end has ended it, and will not come back to its session.
    #[error("the app server says goodbye: {0}")]
    Farewell(String),
    #[error("the app server sent text where frames belong")]
    Text,
    #[error("{0}")]
    Socket(#[from] tokio_tungstenite::tungstenite::Error),
}

impl LinkSocket {
    /// A link over a WebSocket.
    #[must_use]
    pub(crate) fn network(socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        Self { reader: LinkReader::Network(stream), writer: LinkWriter::Network(sink) }
    }

    /// A link in memory, and its far end.
    #[must_use]
    pub(crate) fn memory() -> (Self, MemoryLink) {
        let ((up, far_reader), (far_writer, down)) = (mpsc::channel(PIECES_MAX), mpsc::channel(PIECES_MAX));
        let near = Self { reader: LinkReader::Memory(down), writer: LinkWriter::Memory(up) };
        (near, MemoryLink { reader: far_reader, writer: far_writer })
    }
}

impl LinkReader {
    /// The next piece. Cancel-safe.
    ///
    /// # Errors
    /// When there is none and will be none.
    pub(crate) async fn next(&mut self) -> Result<Bytes, LinkSocketError> {
        match self {
            Self::Memory(pieces) => pieces.recv().await.ok_or(LinkSocketError::Closed),
            Self::Network(stream) => loop {
                match stream.next().await.ok_or(LinkSocketError::Closed)?? {
                    Message::Binary(bytes) => return Ok(bytes),
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Close(Some(close)) if close.code == CloseCode::Away => {
                        return Err(LinkSocketError::Farewell(close.reason.to_string()));
                    }
                    Message::Close(_) => return Err(LinkSocketError::Closed),
                    Message::Text(_) | Message::Frame(_) => return Err(LinkSocketError::Text),
                }
            },
        }
    }

    /// The next piece, if it is there already.
    pub(crate) fn next_now(&mut self) -> Option<Result<Bytes, LinkSocketError>> {
        self.next().now_or_never()
    }
}

impl LinkWriter {
    /// Sends a piece.
    ///
    /// # Errors
    /// When the far end is gone.
    pub(crate) async fn send(&mut self, piece: Bytes) -> Result<(), LinkSocketError> {
        match self {
            Self::Memory(pieces) => pieces.send(piece).await.map_err(|_| LinkSocketError::Closed),
            Self::Network(sink) => Ok(sink.send(Message::Binary(piece)).await?),
        }
    }

    /// Tells the far end that this was all, and the end of its session.
    pub(crate) async fn say_goodbye(&mut self) {
        match self {
            // Dropping it is what tells.
            Self::Memory(_) => {}
            // It fails where the far end was faster.
            Self::Network(sink) => {
                let close = CloseFrame { code: CloseCode::Away, reason: "the session is over".into() };
                drop(sink.send(Message::Close(Some(close))).await);
            }
        }
    }
}
