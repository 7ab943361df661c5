//! Writing side of a socket: sends the session's data, pings and acknowledgements.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep_until, timeout};
use trunkline_protocol::service::Attachment;

use super::{LinkClock, LinkEnd, LinkOutbox, LinkWebSocket, LinkWriter, Outgoing, SocketStop, StopReason};

/// After writing at least this many frames, a link lets other tasks run before the next write: calls of many clients
/// arrive close together, and each write wakes the peer. A single caller's frame leaves immediately.
const CROWD_FRAMES: u64 = 2;

/// Size of a chunk that was written.
#[derive(Debug, Clone, Copy)]
pub struct WrittenPiece {
    /// Number of its frames; zero for a ping.
    pub frames: u64,
    /// Number of its bytes.
    pub bytes: usize,
}

/// Writer of a session's data to one socket.
#[derive(Debug)]
pub struct LinkWriteLoop<'a> {
    /// Send queue of the session.
    pub outbox: &'a LinkOutbox,
    /// Clock of the session's milliseconds.
    pub clock: LinkClock,
    /// Id of the socket in the session.
    pub attachment: Attachment,
    /// Time limit for writing one chunk; `None` if only silence determines that the peer is gone.
    pub piece_timeout: Option<Duration>,
}

impl LinkWriteLoop<'_> {
    /// Writes until the socket has to stop; before a shutdown, sends all waiting data. Each written chunk is passed to
    /// `count`. Fails if the socket fails or hangs.
    pub async fn run<S: LinkWebSocket>(
        &self,
        socket: &mut LinkWriter<S>,
        stop: &SocketStop,
        mut count: impl FnMut(WrittenPiece),
    ) -> Result<(), LinkEnd> {
        let mut frames = 0;
        loop {
            let reason = stop.reason();
            if reason.is_some_and(|reason| reason != StopReason::Shutdown) {
                return Ok(());
            }
            match self.outbox.poll(self.attachment, self.clock.now_ms()) {
                Outgoing::Piece(piece) => {
                    let written = WrittenPiece { frames: piece.frames, bytes: piece.bytes.len() };
                    self.write(socket, stop, piece.bytes).await?;
                    frames += written.frames;
                    count(written);
                }
                Outgoing::Over => return Ok(()),
                Outgoing::Idle(_) if reason.is_some() => return Ok(()),
                Outgoing::Idle(at_ms) => {
                    tokio::select! {
                        biased;
                        () = self.outbox.filled() => {}
                        () = sleep_until(self.clock.instant(at_ms)) => {}
                    }
                    if std::mem::take(&mut frames) >= CROWD_FRAMES {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    async fn write<S: LinkWebSocket>(
        &self,
        socket: &mut LinkWriter<S>,
        stop: &SocketStop,
        piece: Bytes,
    ) -> Result<(), LinkEnd> {
        let mut writing = pin!(async {
            match self.piece_timeout {
                None => socket.send(piece).await,
                Some(limit) => timeout(limit, socket.send(piece)).await.unwrap_or(Err(LinkEnd::Stuck)),
            }
        });
        tokio::select! {
            biased;
            written = &mut writing => written,
            () = stop.stopped() => match stop.reason() {
                Some(StopReason::Shutdown) => writing.await,
                // A blocked socket must not delay the next one.
                _ => Err(stop.link_end()),
            },
        }
    }
}
