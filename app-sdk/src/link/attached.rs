//! One socket of a session, from the accepted upgrade to its end, and the end of a session whose proxy is silent.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use trunkline_link::{
    LinkEnd, LinkReadLoop, LinkWriteLoop, SocketStop, StopReason, request_handshake, wait_for_verdict,
};
use trunkline_protocol::limits::LINK_TIMEOUT_MS;
use trunkline_protocol::service::{Answer, Incoming, Offer, Role, SessionEvent};
use trunkline_protocol::wire::SESSION_OVER_CODE;

use super::app_socket::{LinkReader, LinkSocket, LinkWriter, SlotKey};
use super::endpoint_sink::EndpointSink;
use super::proxy_log::end_of_connections;
use super::session::{LinkSession, SessionSocket, SessionTerms};
use super::slots::{Refused, SessionStart, Slots, TakenSlot};
use crate::connection::ConnectionClose;
use crate::metrics::Counted;
use crate::sync::lock;

/// Time limit for flushing queued data when a link ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

const CLOSE_NORMAL: u16 = 1000;

/// A link requested by a proxy or dialled by this app server.
pub(crate) struct Link {
    pub(crate) terms: SessionTerms,
    pub(crate) slots: Arc<Slots>,
}

/// Permission to be the socket of a session. Released on drop, because an upgrade may fail before its socket runs.
pub(crate) struct Attached {
    pub(crate) session: Arc<LinkSession>,
    slots: Arc<Slots>,
    /// The socket returns the session's numbering when it ends.
    socket: SessionSocket,
    /// How to close the connections if the session ends with this socket.
    over: Option<ConnectionClose>,
}

impl Link {
    /// Begins or resumes the session in the proxy's offer. Without an offer, begins a session that ends with its
    /// socket.
    pub(crate) async fn attach(self, offer: Option<Offer>) -> Result<(Attached, Answer), Refused> {
        let Self { terms, slots } = self;
        loop {
            let occupied = match slots.take_slot(&terms, offer.as_ref())? {
                TakenSlot::Attached(SessionStart { session, socket, answer, is_new }) => {
                    if is_new {
                        terms.tasks.spawn(keep(Arc::clone(&session), Arc::clone(&slots)));
                    }
                    return Ok((Attached { session, slots, socket, over: None }, answer));
                }
                TakenSlot::Occupied(session) => session,
            };
            occupied.stop(StopReason::Replaced);
            occupied.detached().await;
        }
    }

    /// Runs an in-memory link until it ends. It loses no data, so its session is not resumable.
    pub(crate) async fn run(self, socket: LinkSocket) {
        // Dropping the socket signals the refusal.
        if let Ok((attached, _)) = self.attach(None).await {
            attached.run(socket).await;
        }
    }
}

impl Attached {
    pub(crate) async fn run(self, mut socket: LinkSocket) {
        let shaken = tokio::select! {
            biased;
            () = self.socket.stop.stopped() => Err(self.socket.stop.link_end()),
            shaken = request_handshake(&mut socket) => shaken,
        };
        match shaken {
            Ok(()) => self.run_shaken(socket).await,
            Err(end) => {
                let SlotKey { hub, node, slot, .. } = &self.session.key;
                tracing::debug!(%hub, %node, slot, end = %end.reason(Role::AppServer), "link not opened");
                self.finish(end, Some(socket.writer)).await;
            }
        }
    }

    /// Runs a socket after its handshake, until it ends.
    pub(crate) async fn run_shaken(mut self, socket: LinkSocket) {
        let (end, writer) = self.carry(socket).await;
        self.session.log_ended(&end);
        self.finish(end, writer).await;
    }

    async fn finish(mut self, end: LinkEnd, writer: Option<LinkWriter>) {
        let is_service = self.session.service.is_some();
        self.over = (!end.is_resumable()).then(|| end_of_connections(&end));
        drop(self);
        if let (Some(mut writer), Some((code, reason))) = (writer, end.close_frame(Role::AppServer)) {
            // A service treats any code except the normal one as an error.
            let code = if is_service && code == SESSION_OVER_CODE { CLOSE_NORMAL } else { code };
            writer.close_socket((code, reason)).await;
        }
    }

    /// Reads and writes. Returns the reason for the end, and the writing half unless the writer hangs.
    async fn carry(&mut self, socket: LinkSocket) -> (LinkEnd, Option<LinkWriter>) {
        let metrics = &self.session.endpoint.outbound().metrics;
        let _open = Counted::new(&metrics.links);
        if self.socket.is_resumed {
            metrics.links_resumed.inc();
        }
        self.session.log_opened(self.socket.is_resumed);
        let mut writing = self.spawn_writer(socket.writer);
        let end =
            read_link((&self.session, &self.slots), &mut self.socket.incoming, socket.reader, &self.socket.stop).await;
        self.socket.stop.stop(StopReason::Failed, &self.session.outbox);
        // Frames queued before a shutdown are still sent; otherwise they wait for the next socket.
        match tokio::time::timeout(FLUSH_TIMEOUT, &mut writing).await {
            Ok(Ok((writer, Ok(())))) => (end, Some(writer)),
            // If the writer failed first, it stopped the reader.
            Ok(Ok((_, Err(cause)))) if matches!(end, LinkEnd::Replaced) && self.has_failed() => (cause, None),
            Ok(Ok((_, Err(_)))) => (end, None),
            Ok(Err(_)) | Err(_) => {
                writing.abort();
                (end, None)
            }
        }
    }

    /// Writes in a separate task, so that a busy reader causes no delay.
    fn spawn_writer(&self, mut writer: LinkWriter) -> JoinHandle<(LinkWriter, Result<(), LinkEnd>)> {
        let (session, stop, attachment) = (Arc::clone(&self.session), self.socket.stop.clone(), self.socket.attachment);
        tokio::spawn(async move {
            let (outbox, clock) = (&*session.outbox, session.clock);
            let piece_timeout = Some(Duration::from_millis(LINK_TIMEOUT_MS));
            let writes = LinkWriteLoop { outbox, clock, attachment, piece_timeout };
            let written = writes.run(&mut writer, &stop, |_| {}).await;
            // Notifies the reader of a failed socket immediately.
            stop.stop(StopReason::Failed, outbox);
            (writer, written)
        })
    }

    fn has_failed(&self) -> bool {
        self.socket.stop.reason() == Some(StopReason::Failed)
    }
}

async fn read_link(
    (session, slots): (&LinkSession, &Slots),
    incoming: &mut Incoming,
    reader: LinkReader,
    stop: &SocketStop,
) -> LinkEnd {
    let mut reads = LinkReadLoop { outbox: &session.outbox, clock: session.clock, incoming, reader };
    reads.run(&mut EndpointSink::new(session, slots), stop).await
}

impl Drop for Attached {
    fn drop(&mut self) {
        *lock(&self.session.incoming) = std::mem::take(&mut self.socket.incoming);
        self.slots.let_go(&self.session, self.socket.attachment, self.over.take());
    }
}

/// Time for a proxy reported as crashed to prove that it is alive. It has been refused for 2 s, and a live proxy dials
/// again within 2 s.
const DOUBTED_FOR: Duration = Duration::from_secs(1);

/// Monitors the silence of the proxy, and ends the session when it is silent too long or when the app server stops.
///
/// Only silence distinguishes a restarted proxy from a second one with its name: a live proxy sends several pings
/// within the default window, and a proxy cut off for its window has given up the session.
pub(super) async fn keep(session: Arc<LinkSession>, slots: Arc<Slots>) {
    let mut suspected_at = None;
    loop {
        let why = tokio::select! {
            () = session.over.cancelled() => return,
            () = session.reported_crashed.notified() => {
                // sleep: a live proxy has a new socket by the end of it
                sleep(DOUBTED_FOR).await;
                if slots.end_crashed(&session) {
                    return;
                }
                continue;
            }
            () = session.shutdown.cancelled() => StopReason::Shutdown,
            () = session.doubted.notified(), if suspected_at.is_none() => {
                suspected_at = Some(Instant::now());
                continue;
            }
            () = session.suspicion_elapsed(suspected_at) => {
                if suspected_at.take().is_some_and(|since| session.node.received_at() > since) {
                    slots.note_shared_name(&session.key);
                    continue;
                }
                StopReason::Replaced
            }
            verdict = wait_for_verdict(&session.outbox, session.clock, |_| {}) => match verdict {
                None => return,
                Some(SessionEvent::PeerSilent) => {
                    session.stop(StopReason::Silent);
                    continue;
                }
                Some(SessionEvent::End(cause)) => StopReason::Over(cause),
            }
        };
        session.stop(why);
        session.detached().await;
        // Unless the session was resumed just now: then the silence is over, or the new socket is stopped too.
        slots.end_detached(&session, &end_of_connections(&LinkEnd::from(why)));
    }
}
