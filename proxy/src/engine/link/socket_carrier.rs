//! Frames over one socket of a session, to an app server or another node: reads in batches, writes as the ring
//! fills, detects a silent peer.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use trunkline_link::{
    FrameSink, LinkClock, LinkEnd, LinkOutbox, LinkReadLoop, LinkReader, LinkWriteLoop, LinkWriter, SocketStop,
    StopReason, WrittenPiece, wait_for_verdict,
};
use trunkline_protocol::service::{Attachment, Incoming, SessionEvent};

use crate::engine::upstream::UpstreamWebSocket;

/// Time for writing frames that were queued before the link was given up.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Counters and measurements of a socket's traffic.
pub(crate) trait SocketMeter {
    fn count_written(&self, piece: WrittenPiece);

    /// Called at the interval of the silence check.
    fn tick(&self, _now_ms: u64) {}
}

pub(crate) struct SocketCarrier<'a, M> {
    pub(crate) outbox: &'a LinkOutbox,
    pub(crate) clock: LinkClock,
    pub(crate) attachment: Attachment,
    /// Timeout for writing one piece.
    pub(crate) piece_timeout: Option<Duration>,
    pub(crate) stop: SocketStop,
    pub(crate) meter: M,
}

impl<M: SocketMeter> SocketCarrier<'_, M> {
    /// Reads and writes until one side ends or the link is given up. Transfer counters only afterwards, when the socket
    /// delivers nothing further.
    pub(crate) async fn run(
        &self,
        incoming: &mut Incoming,
        reader: LinkReader<UpstreamWebSocket>,
        writer: &mut LinkWriter<UpstreamWebSocket>,
        sink: &mut impl FrameSink,
        given_up: impl Future<Output = ()>,
    ) -> LinkEnd {
        let Self { outbox, clock, attachment, piece_timeout, ref stop, ref meter } = *self;
        let mut reads = LinkReadLoop { outbox, clock, incoming, reader };
        let mut reading = pin!(reads.run(sink, stop));
        let writes = LinkWriteLoop { outbox, clock, attachment, piece_timeout };
        let mut writing = pin!(writes.run(writer, stop, |piece| meter.count_written(piece)));
        let end = tokio::select! {
            end = &mut reading => return end,
            written = &mut writing => written.err().unwrap_or(LinkEnd::Replaced),
            end = silence(outbox, clock, meter) => end,
            () = given_up => LinkEnd::Shutdown,
        };
        let is_given_up = matches!(end, LinkEnd::Shutdown);
        stop.stop(if is_given_up { StopReason::Shutdown } else { StopReason::Failed }, outbox);
        // Lets the current batch finish.
        let found = reading.await;
        if is_given_up {
            // Close frames of a node that is shutting down.
            drop(timeout(FLUSH_TIMEOUT, writing).await);
        }
        // A session end found by the reader outweighs a lost socket.
        if end.is_resumable() && !found.is_resumable() { found } else { end }
    }
}

/// Returns when the peer has been silent for too long.
async fn silence(outbox: &LinkOutbox, clock: LinkClock, meter: &impl SocketMeter) -> LinkEnd {
    match wait_for_verdict(outbox, clock, |now_ms| meter.tick(now_ms)).await {
        Some(SessionEvent::PeerSilent) => LinkEnd::Silent,
        Some(SessionEvent::End(cause)) => LinkEnd::Over(cause),
        // The side that ended the session also closes its socket.
        None => std::future::pending().await,
    }
}
