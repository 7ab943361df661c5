//! One end of a node link: its session over all sockets, and what its beats tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trunkline_link::{LinkClock, LinkOutbox, OutboxPolicy, SocketStop, StopReason, TrySendError};
use trunkline_protocol::fleet::{Beats, NodeMessage, OVERDUE_AFTER_MS};
use trunkline_protocol::limits::LINK_RING_MAX_BYTES;
use trunkline_protocol::service::{Class, Incoming, Role, Session, SessionId, SessionSettings, UndeliveredFrames};

/// How long a node link outlives its socket: a node that is frozen for that long misses nothing.
pub(super) const NODE_LINK_WINDOW_MS: u64 = 30_000;

/// Bytes that may wait for a node at most: the ring, and its quarter in reserve.
const TOLD_MAX_BYTES: usize = 5 * LINK_RING_MAX_BYTES / 4;

/// One end of a node link, from its first socket until its session is over.
#[derive(Debug)]
pub(crate) struct NodeLink {
    outbox: LinkOutbox,
    clock: LinkClock,
    /// Numbering of what comes in, while no socket has it.
    incoming: Mutex<Incoming>,
    beats: Mutex<Beats>,
    /// Time since which it has had no socket; the end of time while it has one.
    closed_ms: AtomicU64,
    /// Ends the present socket.
    socket: Mutex<SocketStop>,
    detached: Notify,
    /// Fires when it is to end: the node leaves, or another start of the far end has come.
    given_up: CancellationToken,
}

impl NodeLink {
    /// The end of the node that has this role in a session that begins.
    pub(super) fn new(id: SessionId, role: Role, clock: LinkClock) -> Self {
        let settings = SessionSettings::new(LINK_RING_MAX_BYTES, NODE_LINK_WINDOW_MS);
        let session = Session::new(id, role, settings, clock.now_ms());
        Self {
            outbox: LinkOutbox::new(OutboxPolicy::waiting(), Some(session)),
            clock,
            incoming: Mutex::default(),
            beats: Mutex::default(),
            closed_ms: AtomicU64::new(clock.now_ms()),
            socket: Mutex::default(),
            detached: Notify::new(),
            given_up: CancellationToken::new(),
        }
    }

    /// The send queue, for the tasks that keep the link.
    pub(super) fn outbox(&self) -> &LinkOutbox {
        &self.outbox
    }

    pub(super) fn clock(&self) -> LinkClock {
        self.clock
    }

    /// Whether it has a socket.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    /// Whether too much waits for the far end.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// Bytes that wait for the far end, or for its acknowledgement.
    pub(super) fn ring_bytes(&self) -> usize {
        self.outbox.ring_bytes()
    }

    /// Whether nothing reaches the far end any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_given_up() || self.outbox.is_closed()
    }

    /// Queues a frame if there is room; never waits.
    ///
    /// # Errors
    /// When it is not queued.
    pub(super) fn try_send(&self, frame: &[u8]) -> Result<(), TrySendError> {
        self.outbox.push_if_room(Class::Ordinary, frame)
    }

    /// Queues a message that keeps the fleet together (states, interest, answers), room or no room: there are few. A
    /// far end that takes none of many loses the link.
    pub(super) fn tell(&self, message: &NodeMessage) {
        if self.ring_bytes() > TOLD_MAX_BYTES {
            return self.give_up();
        }
        // A link that is over has no far end any more; what it is told has no receiver.
        let _ = self.outbox.push(Class::Reserved, |out: &mut BytesMut| message.encode(out));
    }

    pub(super) fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the far end for a sign of life.
    pub(super) fn beat(&self) {
        if self.is_open() {
            let ping = self.beats().ask(self.clock.now_ms());
            self.outbox.echo(&ping);
        }
    }

    /// Asks for a sign of life unless one is owed: so whoever asks something knows within a second whether an answer
    /// may come.
    pub(super) fn watch(&self) {
        if !self.beats().is_owed() {
            self.beat();
        }
    }

    /// Whether the far end has been silent, or without a socket, for so long that nobody waits for it.
    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        let closed_ms = now_ms.saturating_sub(self.closed_ms.load(Ordering::Relaxed));
        closed_ms.max(self.beats().owed_ms(now_ms)) > OVERDUE_AFTER_MS
    }

    /// Takes the answer of a beat; returns the time at which that was asked.
    pub(super) fn take_answer(&self, number: u64) -> Option<u64> {
        self.beats().answered(number, self.clock.now_ms())
    }

    /// Number of a beat behind all that is queued now; without a socket, of the next one.
    pub(super) fn beat_behind(&self) -> u64 {
        let next = self.beats().asked();
        self.beat();
        next
    }

    /// Takes the numbering for a socket that begins, and how that socket is ended from outside.
    pub(super) fn begin_socket(&self, received: u64) -> (Incoming, SocketStop) {
        self.closed_ms.store(u64::MAX, Ordering::Relaxed);
        let mut incoming = std::mem::take(&mut *self.incoming());
        incoming.attach(received);
        let stop = SocketStop::default();
        *self.socket() = stop.clone();
        (incoming, stop)
    }

    /// Gives the numbering back; to be called before the socket is detached.
    pub(super) fn end_socket(&self, incoming: Incoming) {
        self.closed_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        *self.incoming() = incoming;
    }

    /// Tells those that wait for the end of a socket that it is detached.
    pub(super) fn notify_detached(&self) {
        self.detached.notify_waiters();
    }

    /// Ends the present socket, if there is one.
    pub(super) fn stop_socket(&self, reason: StopReason) {
        self.socket().stop(reason, &self.outbox);
    }

    /// Waits until it has no socket.
    pub(super) async fn detached(&self) {
        loop {
            let detached = self.detached.notified();
            if !self.is_open() {
                return;
            }
            detached.await;
        }
    }

    /// Gives the link up: its session ends as soon as its tasks notice.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Waits until it is given up. Cancel-safe.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Whether it is given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_cancelled()
    }

    /// Ends the session; returns what the far end may not have got.
    pub(super) fn end(&self) -> UndeliveredFrames {
        self.stop_socket(StopReason::Shutdown);
        let undelivered = self.outbox.close();
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
