//! Carry node messages over one socket of a node link, at either end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use trunkline_link::{
    FrameSink, LinkEnd, LinkReadLoop, LinkReader, LinkWriteLoop, LinkWriter, SocketStop, StopReason, wait_for_verdict,
};
use trunkline_protocol::limits::LINK_TIMEOUT_MS;
use trunkline_protocol::service::{Attachment, Incoming, SessionEvent};

use super::fleet_counters::FleetCounters;
use super::node_link::NodeLink;
use crate::upstream::UpstreamWebSocket;

/// Time that messages have to leave which were queued before a node leaves.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// One socket of a node link.
pub(super) struct LinkCarrier<'a> {
    pub(super) link: &'a Arc<NodeLink>,
    pub(super) counters: &'a FleetCounters,
    pub(super) attachment: Attachment,
    pub(super) stop: SocketStop,
}

impl LinkCarrier<'_> {
    /// Reads and writes until one side has a reason to end. Afterwards the socket brings nothing more.
    pub(super) async fn run(
        &self,
        incoming: &mut Incoming,
        reader: LinkReader<UpstreamWebSocket>,
        writer: &mut LinkWriter<UpstreamWebSocket>,
        sink: &mut impl FrameSink,
    ) -> LinkEnd {
        let (link, stop) = (self.link, &self.stop);
        let (outbox, clock) = (link.outbox(), link.clock());
        let mut reads = LinkReadLoop { outbox, clock, incoming, reader };
        let mut reading = pin!(reads.run(sink, stop));
        let piece_timeout = Some(Duration::from_millis(LINK_TIMEOUT_MS));
        let writes = LinkWriteLoop { outbox, clock, attachment: self.attachment, piece_timeout };
        let mut writing = pin!(writes.run(writer, stop, |piece| {
            self.counters.sent.add(piece.frames);
            self.counters.sent_bytes.add(piece.bytes.len() as u64);
        }));
        let end = tokio::select! {
            end = &mut reading => return end,
            written = &mut writing => written.err().unwrap_or(LinkEnd::Replaced),
            end = silence(link) => end,
            () = link.given_up() => LinkEnd::Shutdown,
        };
        let is_given_up = matches!(end, LinkEnd::Shutdown);
        stop.stop(if is_given_up { StopReason::Shutdown } else { StopReason::Failed }, outbox);
        // The batch that is being read comes to its end.
        let found = reading.await;
        if is_given_up {
            drop(timeout(FLUSH_TIMEOUT, writing).await);
        }
        if end.is_resumable() && !found.is_resumable() { found } else { end }
    }
}

/// Says when the other node was silent for too long.
async fn silence(link: &NodeLink) -> LinkEnd {
    match wait_for_verdict(link.outbox(), link.clock(), |_| {}).await {
        Some(SessionEvent::PeerSilent) => LinkEnd::Silent,
        Some(SessionEvent::End(cause)) => LinkEnd::Over(cause),
        // Whoever has ended the session ends its socket, too.
        None => std::future::pending().await,
    }
}
