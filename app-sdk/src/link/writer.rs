//! The writing half of a link: what the session has for its socket becomes pieces on the wire.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::limits::LINK_TIMEOUT_MS;
use trunkline_protocol::service::Attachment;

use super::LinkEnd;
use super::session::{LinkSession, Stop};
use super::socket::LinkWriter;
use crate::node::Outgoing;

/// A link that carried so many frames in its last write lets other tasks run before the next one: what they send leaves
/// with it.
const CROWD_FRAMES: u64 = 2;

/// Writes until the socket is to stop; before a shutdown, what still waits, too. Gives the socket's half back for a last
/// word.
pub(super) async fn write(
    session: Arc<LinkSession>,
    attachment: Attachment,
    stop: CancellationToken,
    mut socket: LinkWriter,
) -> (LinkWriter, Result<(), LinkEnd>) {
    let written = write_all(&session, attachment, &stop, &mut socket).await;
    // The reader is to know of a failed socket at once.
    stop.cancel();
    (socket, written)
}

async fn write_all(
    session: &LinkSession,
    attachment: Attachment,
    stop: &CancellationToken,
    socket: &mut LinkWriter,
) -> Result<(), LinkEnd> {
    let is_to_flush = || session.stop_reason() == Some(Stop::Shutdown);
    let mut frames = 0;
    loop {
        let is_stopped = stop.is_cancelled();
        if is_stopped && !is_to_flush() {
            return Ok(());
        }
        match session.outbox.poll(attachment, session.now_ms()) {
            Outgoing::Piece(piece) => {
                frames = piece.frames;
                let mut writing = pin!(write_piece(socket, piece.bytes));
                tokio::select! {
                    biased;
                    written = &mut writing => written?,
                    () = stop.cancelled() => {
                        // A blocked socket must not delay the next one.
                        if !is_to_flush() {
                            return Err(LinkEnd::Replaced);
                        }
                        writing.await?;
                    }
                }
            }
            Outgoing::Over => return Ok(()),
            Outgoing::Idle(_) if is_stopped => return Ok(()),
            Outgoing::Idle(at_ms) => {
                tokio::select! {
                    biased;
                    () = session.outbox.filled() => {}
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep_until(session.instant(at_ms)) => {}
                }
                if frames >= CROWD_FRAMES {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

async fn write_piece(socket: &mut LinkWriter, bytes: Bytes) -> Result<(), LinkEnd> {
    match tokio::time::timeout(Duration::from_millis(LINK_TIMEOUT_MS), socket.send(bytes)).await {
        Ok(written) => written,
        Err(_) => Err(LinkEnd::Stuck),
    }
}
