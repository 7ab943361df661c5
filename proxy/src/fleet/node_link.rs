//! One end of a node link: its session across sockets, its beats, its carrier over one socket, its end as text for
//! people, and the counters of messages between nodes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_link::{
    LinkClock, LinkEnd, LinkOutbox, OutboxPolicy, SocketStop, StopReason, TrySendError, WrittenPiece,
};
use trunkline_protocol::fleet::{Beats, NodeMessage, OVERDUE_AFTER_MS};
use trunkline_protocol::limits::{LINK_FRAME_MAX_BYTES, LINK_RING_MAX_BYTES, LINK_TIMEOUT_MS};
use trunkline_protocol::service::{
    Attachment, Class, Incoming, Role, Session, SessionId, SessionSettings, UndeliveredFrames,
};

use super::node_queue::{NODE_QUEUE_MAX_BYTES, NodeQueue};
use crate::engine::link::{SocketCarrier, SocketMeter};
use crate::ground::auth::Signer;
use crate::ground::limits::SignerShare;
use crate::ground::metrics::{Counter, label, metered};

label! {
    /// Cause of dropping a message for a node.
    pub(crate) enum DropCause as "cause", in DropCounters {
        /// The queue of the node is full.
        Full = "full",
        /// The member has no link.
        Unlinked = "unlinked",
        /// The link was lost for longer than its window, including messages in flight.
        Lost = "lost",
        /// Larger than the frame limit of a link.
        TooLarge = "too_large",
        /// Received, but not readable.
        Malformed = "malformed",
    }
}

metered! {
    pub(crate) struct FleetCounters {
        #[metric("trunkline_fleet_frames_total", "Messages between nodes.", direction = "sent")]
        pub(crate) sent: Counter,
        #[metric("trunkline_fleet_frames_total", direction = "received")]
        pub(crate) received: Counter,
        #[metric("trunkline_fleet_bytes_total", "Bytes between nodes.", direction = "sent")]
        pub(crate) sent_bytes: Counter,
        #[metric("trunkline_fleet_bytes_total", direction = "received")]
        pub(crate) received_bytes: Counter,
        #[metric("trunkline_fleet_dropped_total", "Messages between nodes that were dropped, by cause.")]
        dropped: DropCounters,
    }
}

impl FleetCounters {
    pub(super) fn drop_messages(&self, cause: DropCause, count: u64) {
        self.dropped.of(cause).add(count);
    }

    #[cfg(test)]
    pub(crate) fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped.of(cause).get()
    }
}

/// Time that a node link survives without a socket. A node frozen for less than this loses no message.
pub(super) const NODE_LINK_WINDOW_MS: u64 = 30_000;

/// Maximum bytes queued for a node: its messages, the last of which may be large, and a reserve.
const TOLD_MAX_BYTES: usize = NODE_QUEUE_MAX_BYTES + LINK_FRAME_MAX_BYTES + LINK_RING_MAX_BYTES;

#[derive(Debug)]
pub(crate) struct NodeLink {
    outbox: LinkOutbox,
    /// Apps' messages in the outbox.
    queue: NodeQueue,
    pub(super) clock: LinkClock,
    /// Incoming frame numbering, while no socket owns it.
    incoming: Mutex<Incoming>,
    beats: Mutex<Beats>,
    /// Time of the last disconnect; the maximum while connected.
    closed_ms: AtomicU64,
    /// Closes the current socket.
    socket: Mutex<SocketStop>,
    detached: Notify,
    /// Cancelled when the link should end: the node leaves, or the peer has restarted.
    given_up: CancellationToken,
}

impl NodeLink {
    pub(super) fn new(id: SessionId, role: Role, clock: LinkClock) -> Self {
        let settings = SessionSettings::new(LINK_RING_MAX_BYTES, NODE_LINK_WINDOW_MS);
        let session = Session::new(id, role, settings, clock.now_ms());
        Self {
            outbox: LinkOutbox::new(OutboxPolicy::waiting(), Some(session)),
            queue: NodeQueue::default(),
            clock,
            incoming: Mutex::default(),
            beats: Mutex::default(),
            closed_ms: AtomicU64::new(clock.now_ms()),
            socket: Mutex::default(),
            detached: Notify::new(),
            given_up: CancellationToken::new(),
        }
    }

    /// Send queue, for the tasks of the link.
    pub(super) fn outbox(&self) -> &LinkOutbox {
        &self.outbox
    }

    /// Whether a socket is attached.
    pub(crate) fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    pub(super) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// Bytes queued or unacknowledged.
    pub(super) fn ring_bytes(&self) -> usize {
        self.outbox.ring_bytes()
    }

    /// Whether the link can no longer deliver.
    pub(super) fn is_over(&self) -> bool {
        self.is_given_up() || self.outbox.is_closed()
    }

    /// Queues a frame of an app unless the node counts as lost; never waits.
    pub(super) fn try_send(&self, signer: &Signer, frame: &[u8]) -> Result<(), TrySendError> {
        self.queue.push(&self.outbox, signer, frame)
    }

    /// Whether an app has used up its share of the queue.
    pub(super) fn is_crowded(&self, share: &SignerShare) -> bool {
        self.queue.is_crowded(share)
    }

    /// Waits until an app has room in the queue, as long as the node takes messages.
    pub(super) async fn room(&self, share: &SignerShare, until: Instant) {
        self.queue.room(&self.outbox, share, until).await;
    }

    /// Queues a control message (state, interest, answer) even if the queue is full. A peer that accepts none for long
    /// loses the link.
    pub(super) fn notify(&self, message: &NodeMessage) {
        if self.ring_bytes() > TOLD_MAX_BYTES {
            return self.give_up();
        }
        // Ignored after the end: there is no receiver.
        let _ = self.outbox.push(Class::Reserved, |out: &mut BytesMut| message.encode(out));
    }

    pub(super) fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn beat(&self) {
        if self.is_open() {
            let ping = self.beats().ask(self.clock.now_ms());
            self.outbox.echo(&ping);
        }
    }

    /// Sends a beat unless one is pending. Queries thus detect a dead node within a second.
    pub(super) fn watch(&self) {
        if !self.beats().is_owed() {
            self.beat();
        }
    }

    /// Whether the peer has been silent or disconnected too long to wait for.
    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        let closed_ms = now_ms.saturating_sub(self.closed_ms.load(Ordering::Relaxed));
        let is_silent = closed_ms.max(self.beats().owed_ms(now_ms)) > OVERDUE_AFTER_MS;
        // A beat waits behind all queued messages.
        is_silent && !self.queue.has_progress(&self.outbox, Duration::from_millis(OVERDUE_AFTER_MS))
    }

    /// Handles the answer to a beat; returns when the beat was sent.
    pub(super) fn take_answer(&self, number: u64) -> Option<u64> {
        self.beats().answered(number, self.clock.now_ms())
    }

    /// Number of a beat queued after everything else; without a socket, of the next beat.
    pub(super) fn beat_behind(&self) -> u64 {
        let next = self.beats().asked();
        self.beat();
        next
    }

    /// Hands the numbering to a new socket, with a handle to stop that socket.
    pub(super) fn begin_socket(&self, received: u64) -> (Incoming, SocketStop) {
        self.closed_ms.store(u64::MAX, Ordering::Relaxed);
        let mut incoming = std::mem::take(&mut *self.incoming());
        incoming.attach(received);
        let stop = SocketStop::default();
        *self.socket() = stop.clone();
        (incoming, stop)
    }

    /// Returns the numbering. Call before detaching the socket.
    pub(super) fn end_socket(&self, incoming: Incoming) {
        self.closed_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        *self.incoming() = incoming;
    }

    pub(super) fn notify_detached(&self) {
        self.detached.notify_waiters();
    }

    pub(super) fn stop_socket(&self, reason: StopReason) {
        self.socket().stop(reason, &self.outbox);
    }

    pub(super) async fn detached(&self) {
        loop {
            let detached = self.detached.notified();
            if !self.is_open() {
                return;
            }
            detached.await;
        }
    }

    /// Requests the end of the session; its tasks notice soon.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Waits until the link is given up. Cancel-safe.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_cancelled()
    }

    /// Ends the session; returns the frames not known to be delivered.
    pub(super) fn end_link(&self) -> UndeliveredFrames {
        self.stop_socket(StopReason::Shutdown);
        let undelivered = self.outbox.close_outbox();
        self.detached.notify_waiters();
        undelivered
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, SocketStop> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries node messages over one socket of a node link, at either end.
pub(super) fn node_carrier<'a>(
    link: &'a NodeLink,
    counters: &'a FleetCounters,
    attachment: Attachment,
    stop: SocketStop,
) -> SocketCarrier<'a, &'a FleetCounters> {
    let (outbox, clock) = (link.outbox(), link.clock);
    let piece_timeout = Some(Duration::from_millis(LINK_TIMEOUT_MS));
    SocketCarrier { outbox, clock, attachment, piece_timeout, stop, meter: counters }
}

impl SocketMeter for &FleetCounters {
    fn count_written(&self, piece: WrittenPiece) {
        self.sent.add(piece.frames);
        self.sent_bytes.add(piece.bytes as u64);
    }
}

/// End of a node link, as text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkOver {
    pub(super) reason: String,
    /// The peer node is certainly gone: it said goodbye, or another start answers.
    pub(super) is_gone: bool,
}

impl LinkOver {
    /// End for this reason; the node may still be alive.
    pub(super) fn because(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_gone: false }
    }

    pub(super) fn gone(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_gone: true }
    }
}

impl From<&LinkEnd> for LinkOver {
    fn from(end: &LinkEnd) -> Self {
        match end {
            LinkEnd::Goodbye(_) => Self::gone("the node has closed the link"),
            LinkEnd::Shutdown => Self::because("this node stops, or the other node has restarted"),
            LinkEnd::Closed => Self::because("the node has closed the socket"),
            LinkEnd::Silent => Self::because("the node is silent"),
            LinkEnd::Stuck => Self::because("the node does not read"),
            LinkEnd::Replaced => Self::because("a newer socket has replaced this one"),
            LinkEnd::Text => Self::because("the node has sent a text message"),
            // The remaining reasons name neither end.
            other => Self::because(other.reason(Role::Proxy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_said_goodbye_is_gone_and_the_reason_names_no_app_server() {
        assert!(LinkOver::from(&LinkEnd::Goodbye(String::new())).is_gone);
        for end in
            [LinkEnd::Closed, LinkEnd::Silent, LinkEnd::Stuck, LinkEnd::Replaced, LinkEnd::Shutdown, LinkEnd::Text]
        {
            let over = LinkOver::from(&end);
            assert!(!over.is_gone && !over.reason.contains("app server"), "{over:?}");
        }
    }
}
