//! A link's two halves: whole pieces of frames in, whole pieces of frames out.
//!
//! Over the network they are WebSocket messages; to a node in this process, or to a test, they are handed over in
//! memory. Nobody above this file knows the difference.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;

use super::LinkEnd;

/// Both halves of a link that is about to shake hands.
pub(crate) struct LinkSocket {
    pub(crate) reader: LinkReader,
    pub(crate) writer: LinkWriter,
}

/// The reading half.
pub(crate) enum LinkReader {
    /// WebSocket messages.
    Network(SplitStream<WebSocket>),
    /// Pieces handed over.
    Memory(mpsc::Receiver<Bytes>),
}

/// The writing half.
pub(crate) enum LinkWriter {
    /// WebSocket messages.
    Network(SplitSink<WebSocket, Message>),
    /// Pieces handed over.
    Memory(mpsc::Sender<Bytes>),
}

impl LinkSocket {
    /// A link over a WebSocket.
    pub(crate) fn network(socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        Self { reader: LinkReader::Network(stream), writer: LinkWriter::Network(sink) }
    }

    /// A link in memory.
    pub(crate) fn memory(reader: mpsc::Receiver<Bytes>, writer: mpsc::Sender<Bytes>) -> Self {
        Self { reader: LinkReader::Memory(reader), writer: LinkWriter::Memory(writer) }
    }
}

impl LinkReader {
    /// The next piece. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Bytes, LinkEnd> {
        match self {
            Self::Memory(pieces) => pieces.recv().await.ok_or(LinkEnd::Closed),
            Self::Network(stream) => match stream.next().await {
                Some(Ok(Message::Close(Some(close)))) if close.code == close_code::AWAY => Err(LinkEnd::Farewell),
                None | Some(Ok(Message::Close(_))) => Err(LinkEnd::Closed),
                Some(Err(error)) => Err(LinkEnd::Socket(error)),
                Some(Ok(Message::Text(_))) => Err(LinkEnd::Text),
                Some(Ok(Message::Binary(bytes))) => Ok(bytes),
                // The WebSocket answers these itself. Nothing to read, but the far end was heard.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Bytes::new()),
            },
        }
    }
}

impl LinkWriter {
    /// Sends a piece.
    pub(super) async fn send(&mut self, piece: Bytes) -> Result<(), LinkEnd> {
        match self {
            Self::Memory(pieces) => pieces.send(piece).await.map_err(|_| LinkEnd::Closed),
            Self::Network(sink) => sink.send(Message::Binary(piece)).await.map_err(LinkEnd::Socket),
        }
    }

    /// Tells the far end in a few words why this was all, if it still listens.
    pub(super) async fn close(&mut self, code: u16, reason: String) {
        match self {
            // Dropping it is what tells.
            Self::Memory(_) => {}
            Self::Network(sink) => {
                let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
                let _ = sink.send(close).await;
            }
        }
    }
}
