//! Carry frames over one socket of a session, to an app server or another node: read in batches, write as its ring
//! fills, count the silence.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use trunkline_link::{
    FrameSink, LinkClock, LinkEnd, LinkOutbox, LinkReadLoop, LinkReader, LinkWriteLoop, LinkWriter, SocketStop,
    StopReason, wait_for_verdict,
};
use trunkline_protocol::service::{Attachment, Incoming, SessionEvent, Transmit};

use crate::upstream::UpstreamWebSocket;

/// Time that frames have to leave which were queued before the link was given up.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts and measures of what a socket carries.
pub(crate) trait SocketMeter {
    /// Counts a piece that was written.
    fn count_written(&self, piece: &Transmit);

    /// Looks at the link, as often as its silence is counted.
    fn tick(&self, _now_ms: u64) {}
}

/// One socket of a session.
pub(crate) struct SocketCarrier<'a, M> {
    pub(crate) outbox: &'a LinkOutbox,
    pub(crate) clock: LinkClock,
    pub(crate) attachment: Attachment,
    /// Time that one piece may take to be written.
    pub(crate) piece_timeout: Option<Duration>,
    pub(crate) stop: SocketStop,
    pub(crate) meter: M,
}

impl<M: SocketMeter> SocketCarrier<'_, M> {
    /// Reads and writes until one side has a reason to end, or the link is given up. The socket brings nothing more
    /// once this returns: not before then may the counters be told to another one.
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
        // The batch that is being read comes to its end.
        let found = reading.await;
        if is_given_up {
            // Close frames of a node that stops.
            drop(timeout(FLUSH_TIMEOUT, writing).await);
        }
        // An end of the session that the reader found out itself weighs more than a lost socket.
        if end.is_resumable() && !found.is_resumable() { found } else { end }
    }
}

/// Says when the far end was silent for too long.
async fn silence(outbox: &LinkOutbox, clock: LinkClock, meter: &impl SocketMeter) -> LinkEnd {
    match wait_for_verdict(outbox, clock, |now_ms| meter.tick(now_ms)).await {
        Some(SessionEvent::PeerSilent) => LinkEnd::Silent,
        Some(SessionEvent::End(cause)) => LinkEnd::Over(cause),
        // Whoever has ended the session ends its socket, too.
        None => std::future::pending().await,
    }
}
