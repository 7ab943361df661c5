//! One socket of a session, from the judged upgrade to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trunkline_protocol::service::{Answer, Attachment, Offer, SessionError};

use super::session::{LinkSession, Socket, Stop};
use super::socket::{LinkReader, LinkSocket, LinkWriter};
use super::{LinkEnd, SlotKey, Slots, handshake, reader, writer};
use crate::connection::ConnectionClose;
use crate::metrics::Counted;
use crate::sync::lock;

/// How long the end of a link may take to write what still waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The right to be the socket of a session, until it is dropped: an upgrade may break off before it has begun.
pub(crate) struct Attached {
    session: Arc<LinkSession>,
    slots: Arc<Slots>,
    attachment: Attachment,
    /// Fires when the socket has to go.
    stop: CancellationToken,
    is_resumed: bool,
    /// What its connections are told if the session ends with this socket.
    over: Option<ConnectionClose>,
}

impl Attached {
    /// Attaches what was judged; `None` when the session is over.
    pub(super) fn new(
        session: Arc<LinkSession>,
        slots: Arc<Slots>,
        offer: &Offer,
    ) -> Option<Result<(Self, Answer), SessionError>> {
        let now_ms = session.now_ms();
        let attached = session.outbox.with_session(|session| session.handle_offer(offer, now_ms))?;
        Some(attached.map(|(attachment, answer)| {
            lock(&session.incoming).attach(answer.received);
            let socket = Socket::default();
            let stop = socket.stop.clone();
            *lock(&session.socket) = socket;
            let is_resumed = offer.received.is_some();
            (Self { session, slots, attachment, stop, is_resumed, over: None }, answer)
        }))
    }

    /// Runs the socket until it ends.
    pub(crate) async fn run(mut self, mut socket: LinkSocket) {
        let shaken = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.stopped()),
            shaken = handshake::shake(&mut socket) => shaken,
        };
        let LinkSocket { reader, writer } = socket;
        let (end, writer) = match shaken {
            Ok(frames) => self.carry(frames, reader, writer).await,
            Err(end) => (end, Some(writer)),
        };
        self.log(&end);
        self.over = (!end.is_resumable()).then(|| end.of_connections());
        drop(self);
        if let (Some(mut writer), Some((code, reason))) = (writer, end.goodbye()) {
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, writer.close(code, reason)).await;
        }
    }

    /// Reads and writes. Returns why it ended, and the writing half unless the writer hangs.
    async fn carry(
        &self,
        frames: handshake::Frames,
        incoming: LinkReader,
        outgoing: LinkWriter,
    ) -> (LinkEnd, Option<LinkWriter>) {
        let metrics = &self.session.endpoint.outbound().metrics;
        let _open = Counted::new(&metrics.links);
        let SlotKey { hub, node, slot, .. } = &self.session.key;
        if self.is_resumed {
            metrics.links_resumed.inc();
            tracing::info!(%hub, %node, slot, "link resumed");
        } else {
            tracing::info!(%hub, %node, slot, "link opened");
        }
        let writing = writer::write(Arc::clone(&self.session), self.attachment, self.stop.clone(), outgoing);
        let mut writing = tokio::spawn(writing);
        let mut end = tokio::select! {
            end = reader::read(&self.session, frames, incoming) => end,
            () = self.stop.cancelled() => self.stopped(),
        };
        self.stop.cancel();
        // What was queued before a shutdown still goes out; all else waits for the next socket.
        match tokio::time::timeout(FLUSH_TIMEOUT, &mut writing).await {
            Ok(Ok((writer, Ok(())))) => (end, Some(writer)),
            Ok(Ok((_, Err(cause)))) => {
                if matches!(end, LinkEnd::Replaced) && self.session.stop_reason().is_none() {
                    end = cause;
                }
                (end, None)
            }
            Ok(Err(_)) | Err(_) => {
                writing.abort();
                (end, None)
            }
        }
    }

    /// Why the socket was stopped; a writer that failed gives no reason here.
    fn stopped(&self) -> LinkEnd {
        self.session.stop_reason().unwrap_or(Stop::Replaced).into()
    }

    fn log(&self, end: &LinkEnd) {
        let SlotKey { hub, node, slot, .. } = &self.session.key;
        if end.is_planned() {
            tracing::info!(%hub, %node, slot, %end, "link ended");
        } else {
            let cause = std::error::Error::source(end).map(ToString::to_string);
            tracing::warn!(%hub, %node, slot, %end, cause, "link ended");
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.slots.let_go(&self.session, self.attachment, self.over.take());
    }
}
