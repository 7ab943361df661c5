//! The two halves of a link: whole pieces of frames in, whole pieces of frames out.
//!
//! Over the network they are WebSocket messages; between a node and the app that it is embedded in, and in tests, they
//! are handed over in memory. Nothing above this file knows the difference.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use trunkline_protocol::service::{FrameBuffer, FrameError, ServiceMessage};
use trunkline_protocol::wire::SESSION_OVER_CODE;

use super::{LinkEnd, LinkMessage, LinkWebSocket, ReceivedMessage};

/// Pieces that may wait in memory; each is what one end gathered in a batch.
const PIECES_MAX: usize = 16;

/// Both halves of a link.
#[derive(Debug)]
pub struct LinkSocket<S: LinkWebSocket> {
    /// Pieces that the far end sends.
    pub reader: LinkReader<S>,
    /// Pieces that the far end gets.
    pub writer: LinkWriter<S>,
}

/// The reading half of a link.
#[derive(Debug)]
pub struct LinkReader<S: LinkWebSocket> {
    pieces: PieceSource<S>,
    /// Bytes that were read and not handed out: behind the handshake frames may wait already.
    frames: FrameBuffer,
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

/// The far end of a link in memory.
#[derive(Debug)]
pub struct MemoryLink {
    /// Pieces that the near end sends.
    pub reader: mpsc::Receiver<Bytes>,
    /// Pieces that the near end gets.
    pub writer: mpsc::Sender<Bytes>,
}

impl<S: LinkWebSocket> LinkSocket<S> {
    /// A link over a WebSocket.
    #[must_use]
    pub fn network(socket: S) -> Self {
        let (sink, stream) = socket.split();
        Self::new(PieceSource::Network(stream), PieceTarget::Network(sink))
    }

    /// A link in memory, and its far end.
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
    /// Waits until more has been read. Cancel-safe.
    ///
    /// # Errors
    /// When nothing more comes.
    pub async fn fill(&mut self) -> Result<(), LinkEnd> {
        let piece = match &mut self.pieces {
            PieceSource::Memory(pieces) => pieces.recv().await.ok_or(LinkEnd::Closed)?,
            PieceSource::Network(stream) => match stream.next().await {
                Some(Ok(message)) => piece_of(message)?,
                Some(Err(error)) => return Err(LinkEnd::Socket(error.into())),
                None => return Err(LinkEnd::Closed),
            },
        };
        // A ping has no bytes.
        if !piece.is_empty() {
            self.frames.push(piece);
        }
        Ok(())
    }

    /// Reads more if it is there already.
    pub fn fill_now(&mut self) -> Option<Result<(), LinkEnd>> {
        self.fill().now_or_never()
    }

    /// The body of the next whole frame that has been read.
    ///
    /// # Errors
    /// When what was read is no frame.
    #[inline]
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.frames.next_body()
    }

    /// Waits for the next message; `None` for one of a type that is not known. Cancel-safe.
    ///
    /// # Errors
    /// When nothing more comes, or no message.
    pub async fn next_message(&mut self) -> Result<Option<ServiceMessage>, LinkEnd> {
        loop {
            if let Some(body) = self.next_body()? {
                return Ok(ServiceMessage::decode(&body)?);
            }
            self.fill().await?;
        }
    }
}

fn piece_of(message: impl LinkMessage) -> Result<Bytes, LinkEnd> {
    match message.into_received() {
        ReceivedMessage::Piece(piece) => Ok(piece),
        ReceivedMessage::Close(Some((SESSION_OVER_CODE, words))) => Err(LinkEnd::Goodbye(words)),
        ReceivedMessage::Close(_) => Err(LinkEnd::Closed),
        ReceivedMessage::Text => Err(LinkEnd::Text),
    }
}

impl<S: LinkWebSocket> LinkWriter<S> {
    /// Sends a piece.
    ///
    /// # Errors
    /// When the far end is gone.
    pub async fn send(&mut self, piece: Bytes) -> Result<(), LinkEnd> {
        match &mut self.pieces {
            PieceTarget::Memory(pieces) => pieces.send(piece).await.map_err(|_| LinkEnd::Closed),
            PieceTarget::Network(sink) => {
                sink.send(S::Message::binary(piece)).await.map_err(|error| LinkEnd::Socket(error.into()))
            }
        }
    }

    /// Sends messages in one piece.
    ///
    /// # Errors
    /// When the far end is gone.
    pub async fn send_messages(&mut self, messages: &[ServiceMessage]) -> Result<(), LinkEnd> {
        let mut piece = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut piece));
        self.send(piece.freeze()).await
    }

    /// Sends a close frame, if the far end still listens. In memory, dropping the link is what tells.
    pub async fn close(&mut self, (code, reason): (u16, String)) {
        if let PieceTarget::Network(sink) = &mut self.pieces {
            // It fails where the far end was faster.
            drop(sink.send(S::Message::close(code, reason)).await);
        }
    }
}
