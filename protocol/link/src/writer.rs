//! The writing side of a socket: what the session has for it becomes pieces on the wire, pings and acknowledgements
//! too.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep_until, timeout};
use trunkline_protocol::service::{Attachment, Transmit};

use super::{LinkClock, LinkEnd, LinkOutbox, LinkWebSocket, LinkWriter, Outgoing, SocketStop, StopReason};

/// A link that carried this many frames in its last write lets other tasks run before the next one: calls of a crowd
/// come close together, and each write wakes the far end. The frame of a lone caller leaves at once.
const CROWD_FRAMES: u64 = 2;

/// Writes what a session has for one socket.
#[derive(Debug)]
pub struct LinkWriteLoop<'a> {
    /// Send queue of the session.
    pub outbox: &'a LinkOutbox,
    /// Clock that the session's milliseconds count by.
    pub clock: LinkClock,
    /// The socket as the session knows it.
    pub attachment: Attachment,
    /// How long one piece may take; `None` where silence alone decides that the far end is gone.
    pub piece_timeout: Option<Duration>,
}

impl LinkWriteLoop<'_> {
    /// Writes until the socket is to stop; before a shutdown, what still waits, too. Each piece is shown to `count`
    /// first.
    ///
    /// # Errors
    /// When the socket fails or hangs.
    pub async fn run<S: LinkWebSocket>(
        &self,
        socket: &mut LinkWriter<S>,
        stop: &SocketStop,
        mut count: impl FnMut(&Transmit),
    ) -> Result<(), LinkEnd> {
        let mut frames = 0;
        loop {
            let reason = stop.reason();
            if reason.is_some_and(|reason| reason != StopReason::Shutdown) {
                return Ok(());
            }
            match self.outbox.poll(self.attachment, self.clock.now_ms()) {
                Outgoing::Piece(piece) => {
                    count(&piece);
                    frames += piece.frames;
                    self.write(socket, stop, piece.bytes).await?;
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
        let mut writing = pin!(self.write_in_time(socket, piece));
        tokio::select! {
            biased;
            written = &mut writing => written,
            () = stop.stopped() => match stop.reason() {
                Some(StopReason::Shutdown) => writing.await,
                // A blocked socket must not delay the next one.
                _ => Err(stop.end()),
            },
        }
    }

    async fn write_in_time<S: LinkWebSocket>(&self, socket: &mut LinkWriter<S>, piece: Bytes) -> Result<(), LinkEnd> {
        match self.piece_timeout {
            None => socket.send(piece).await,
            Some(limit) => timeout(limit, socket.send(piece)).await.unwrap_or(Err(LinkEnd::Stuck)),
        }
    }
}
