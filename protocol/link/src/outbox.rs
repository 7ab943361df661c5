//! Send queue of a link: the ring of its session behind a short lock, and the behaviour when it is full.
//!
//! ```text
//!  push ──────────── never waits ────────────┐
//!  try_send, send ── wait for room, in turn ─┼──► Session's ring ──poll──► one WebSocket message per chunk
//!  complete ──────── room, else reserve ─────┘      ▲ kept until the peer acknowledges it
//! ```
//!
//! Frames are encoded directly into the ring, so everything queued since the last write leaves in one message. The lock
//! is never held across an await. By its policy ([`OutboxPolicy`]), a proxy queues all data of its clients and then
//! pauses reading them ([`is_full`](LinkOutbox::is_full), [`room`](LinkOutbox::room)); an app server makes its senders
//! wait. Completions have a reserve, because a connection with stuck sends must still answer. Control frames (closes,
//! flow control, handshakes) are few and small, and never wait.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;
use trunkline_protocol::service::{
    Answer, Attachment, Class, Frames, Offer, Ping, Session, SessionError, SessionEvent, SessionId, Transmit,
    UndeliveredFrames, UpgradeDecision, decide_upgrade,
};

/// Limits of an outbox in addition to its ring.
#[derive(Debug, Clone, Copy)]
pub struct OutboxPolicy {
    unsent_max_bytes: usize,
}

impl OutboxPolicy {
    /// Full when this many bytes wait for the socket, or the ring has no room: for senders that are paused.
    #[must_use]
    pub fn pausing(unsent_max_bytes: usize) -> Self {
        Self { unsent_max_bytes }
    }

    /// Full when the ring has no room: for senders that wait.
    #[must_use]
    pub fn waiting() -> Self {
        Self { unsent_max_bytes: usize::MAX }
    }
}

/// Error for a frame after the end of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxClosed;

/// Reason why a frame was not queued immediately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrySendError {
    /// There is no room, or other senders are waiting.
    Full,
    /// The session has ended.
    Closed,
}

/// Next step of a socket's writer.
#[derive(Debug)]
pub enum Outgoing {
    /// Data to write now.
    Piece(Transmit),
    /// Wait, at most until this time.
    Idle(u64),
    /// Nothing more to write to this socket.
    Over,
}

/// Send queue of a link. Lives as long as the session, across all its sockets.
#[derive(Debug)]
pub struct LinkOutbox {
    policy: OutboxPolicy,
    /// `None` once the session has ended.
    session: Mutex<Option<Session>>,
    is_full: AtomicBool,
    is_open: AtomicBool,
    /// Also known to the session, but a proxy checks this without the lock on each read of a client.
    is_closed: AtomicBool,
    /// Bytes in the ring as of the last change, for measuring without the lock.
    ring_bytes: AtomicUsize,
    /// Whether a batch of frames is being applied.
    has_batch: AtomicBool,
    filled: Notify,
    emptied: Notify,
    deliveries: DeliveryWatch,
    sends: WaitLine,
    completions: WaitLine,
}

/// Callers waiting until the peer has a frame. Without any, an acknowledgement costs an atomic load.
#[derive(Debug, Default)]
struct DeliveryWatch {
    waiting: AtomicUsize,
    advanced: Notify,
    /// Last frame that the peer had when the session ended.
    last: AtomicU64,
}

/// Registration of a caller in a [`DeliveryWatch`], until dropped.
struct DeliveryWait<'a>(&'a DeliveryWatch);

/// Senders waiting for room: the first waits for a notification, the others for their turn.
#[derive(Debug, Default)]
struct WaitLine {
    turn: tokio::sync::Mutex<()>,
    freed: Notify,
}

impl LinkOutbox {
    /// Creates the queue of a new session; closed from the start without a session.
    #[must_use]
    pub fn new(policy: OutboxPolicy, session: Option<Session>) -> Self {
        Self {
            policy,
            is_closed: AtomicBool::new(session.is_none()),
            session: Mutex::new(session),
            is_full: AtomicBool::new(false),
            is_open: AtomicBool::new(false),
            ring_bytes: AtomicUsize::new(0),
            has_batch: AtomicBool::new(false),
            filled: Notify::new(),
            emptied: Notify::new(),
            deliveries: DeliveryWatch::default(),
            sends: WaitLine::default(),
            completions: WaitLine::default(),
        }
    }

    /// Whether too much data waits for the socket or for acknowledgements.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Whether it has a socket.
    #[must_use]
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether its session has ended.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Bytes kept until the peer has them, including unsent ones.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes.load(Ordering::Relaxed)
    }

    /// Waits until the queue is not full or the session has ended. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if !self.is_full() {
                return;
            }
            emptied.await;
        }
    }

    /// Queues a frame even if there is no room. Fails if the session has ended.
    pub fn push(&self, class: Class, encode: impl FnOnce(&mut BytesMut)) -> Result<(), OutboxClosed> {
        self.with(|session| session.push(class, encode)).ok_or(OutboxClosed)?;
        self.filled.notify_one();
        Ok(())
    }

    /// Queues a small frame that must not wait. Fails if the session has ended.
    pub fn control(&self, frame: &[u8]) -> Result<(), OutboxClosed> {
        self.push(Class::Reserved, |out| out.extend_from_slice(frame))
    }

    /// Queues a send if there is room and no sender is waiting. Fails if it is not queued.
    pub fn try_send(&self, frame: &[u8]) -> Result<(), TrySendError> {
        let Ok(_turn) = self.sends.turn.try_lock() else { return Err(TrySendError::Full) };
        self.push_if_room(Class::Ordinary, frame)
    }

    /// Queues a frame if there is room, ignoring waiting senders: for links without such, so that threads sending
    /// simultaneously don't block each other. Fails if it is not queued.
    pub fn push_if_room(&self, class: Class, frame: &[u8]) -> Result<(), TrySendError> {
        let pushed = self.with(|session| session.try_push(class, |out| out.extend_from_slice(frame)));
        pushed.ok_or(TrySendError::Closed)?.map_err(|_| TrySendError::Full)?;
        self.filled.notify_one();
        Ok(())
    }

    /// Queues a send, waiting for room. Fails if the session has ended.
    pub async fn send(&self, frame: &[u8]) -> Result<(), OutboxClosed> {
        self.push_in_line(&self.sends, Class::Ordinary, frame).await
    }

    /// Queues a completion. Waits only if the reserve is used up, too. Fails if the session has ended.
    pub async fn complete(&self, frame: &[u8]) -> Result<(), OutboxClosed> {
        match self.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed) => Err(OutboxClosed),
            Err(TrySendError::Full) => self.push_in_line(&self.completions, Class::Reserved, frame).await,
        }
    }

    /// Queues a ping that the peer returns, or a reply to its ping, after all queued frames.
    pub fn echo(&self, ping: &Ping) {
        if self.with(|session| session.push_echo(ping)).is_some() {
            self.filled.notify_one();
        }
    }

    /// Takes over another link's unsent frames, even if there is no room: they were already accounted for there.
    pub fn inherit(&self, unsent: Frames) {
        self.with(|session| session.inherit(unsent));
        self.filled.notify_one();
    }

    /// Number of the last queued frame; `None` if the session has ended.
    #[must_use]
    pub fn queued(&self) -> Option<u64> {
        self.session().as_ref().map(Session::queued)
    }

    /// Number of the last frame that the peer has; after the end, that it had by then.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.session().as_ref().map_or_else(|| self.deliveries.last(), Session::delivered)
    }

    /// Waits until the peer has all frames up to this one. For a peer that can't resume, frames written to its socket
    /// count. Cancel-safe. Fails if the session has ended and the peer may not have the frame.
    pub async fn delivered(&self, number: u64) -> Result<(), OutboxClosed> {
        let _wait = DeliveryWait::begin_wait(&self.deliveries);
        loop {
            let mut advanced = pin!(self.deliveries.advanced.notified());
            // Registered before checking the session, so that no acknowledgement in between is missed.
            advanced.as_mut().enable();
            let delivered = self.session().as_ref().map(Session::delivered);
            match delivered {
                Some(delivered) if delivered >= number => return Ok(()),
                None if self.deliveries.last() >= number => return Ok(()),
                None => return Err(OutboxClosed),
                Some(_) => advanced.await,
            }
        }
    }

    /// Returns the next step of this socket's writer.
    #[must_use]
    pub fn poll(&self, attachment: Attachment, now_ms: u64) -> Outgoing {
        let outgoing = self.with(|session| match session.poll_transmit(attachment, now_ms) {
            Some(piece) => Outgoing::Piece(piece),
            None => session.poll_ping_timeout().map_or(Outgoing::Over, Outgoing::Idle),
        });
        // May be the only progress signal for this peer.
        self.deliveries.note_delivery();
        outgoing.unwrap_or(Outgoing::Over)
    }

    /// Waits until a frame was queued or [`wake`](Self::wake) was called since the last wait. Cancel-safe.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Wakes the writer so that it checks for changes.
    pub fn wake(&self) {
        self.filled.notify_one();
    }

    /// Returns the proxy's offer for dialling; `None` if the session has ended.
    #[must_use]
    pub fn offer(&self) -> Option<Offer> {
        self.with(|session| session.offer())
    }

    /// Attaches the socket of a successful dial. Also returns how many frames are replayed. Fails if the answer is
    /// inconsistent; the session has to be ended.
    pub fn attach_answer(
        &self,
        offer: &Offer,
        answer: &Answer,
        now_ms: u64,
    ) -> Result<Option<(Attachment, u64)>, SessionError> {
        let attached = self.with(|session| {
            let replayed = session.counters().sent().saturating_sub(answer.received);
            let attachment = session.handle_answer(offer, answer, now_ms);
            self.is_open.store(session.is_attached(), Ordering::Release);
            Ok(attachment?.map(|attachment| (attachment, replayed)))
        });
        self.deliveries.note_delivery();
        Ok(attached.transpose()?.flatten())
    }

    /// Decides about an upgrade for this session's slot, given the newest session id that the slot ever had.
    #[must_use]
    pub fn decide_upgrade(&self, offer: &Offer, newest: Option<SessionId>) -> UpgradeDecision {
        let judged = self.with(|session| decide_upgrade(offer, Some(session), newest));
        judged.unwrap_or_else(|| decide_upgrade(offer, None, newest))
    }

    /// Attaches the socket of an accepted upgrade; `None` if the session has ended.
    pub fn attach_offer(&self, offer: &Offer, now_ms: u64) -> Option<Result<(Attachment, Answer), SessionError>> {
        let attached = self.with(|session| {
            let attached = session.handle_offer(offer, now_ms);
            self.is_open.store(session.is_attached(), Ordering::Release);
            attached
        });
        self.deliveries.note_delivery();
        attached
    }

    /// Detaches an ended socket, and returns the consequence for the session.
    pub fn detach(&self, attachment: Attachment, now_ms: u64) -> Option<SessionEvent> {
        let verdict = self.with(|session| {
            let verdict = session.detach(attachment, now_ms);
            self.is_open.store(session.is_attached(), Ordering::Release);
            verdict
        });
        verdict.flatten()
    }

    /// Sets whether a batch is being applied. Meanwhile further bytes are not read, so the peer is not silent.
    pub(crate) fn set_batch(&self, has_batch: bool) {
        self.has_batch.store(has_batch, Ordering::Relaxed);
    }

    /// Records a read batch: the peer was active, and all frames up to `taken` are taken, with `bytes` new bytes.
    pub fn handle_batch(&self, taken: Option<u64>, bytes: usize, now_ms: u64) {
        let is_due_earlier = self.with(|session| {
            session.handle_received(now_ms);
            let before = session.poll_ping_timeout();
            if let Some(number) = taken {
                session.handle_taken(number, bytes, now_ms);
            }
            session.poll_ping_timeout() != before
        });
        // The writer sleeps until its next ping, which may now be due earlier.
        if is_due_earlier == Some(true) {
            self.filled.notify_one();
        }
    }

    /// Handles an acknowledgement in a ping, if any. Fails if it is inconsistent; the session has to be ended.
    pub fn handle_ping(&self, ping: &Ping) -> Result<(), SessionError> {
        let handled = self.with(|session| session.handle_ping(ping).map(drop)).unwrap_or(Ok(()));
        self.deliveries.note_delivery();
        handled
    }

    /// Counts the silence of the peer. Called every [`tick_ms`](Self::tick_ms).
    pub fn handle_timeout(&self, now_ms: u64) -> Option<SessionEvent> {
        let act = |session: &mut Session| {
            if self.has_batch.load(Ordering::Relaxed) {
                session.handle_received(now_ms);
            }
            session.handle_timeout(now_ms)
        };
        self.with(act).flatten()
    }

    /// Minimum duration of the peer's silence, counted while there is a socket.
    #[must_use]
    pub fn silent_ms(&self) -> u64 {
        self.with(|session| session.silent_ms()).unwrap_or_default()
    }

    /// When to check a session without a socket again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.with(|session| session.poll_timeout()).flatten()
    }

    /// Interval for counting silence; `None` if the session has ended.
    #[must_use]
    pub fn tick_ms(&self) -> Option<u64> {
        self.with(|session| session.tick_ms())
    }

    /// Ends the session and wakes all waiting callers. Returns the frames in its ring.
    pub fn close_outbox(&self) -> UndeliveredFrames {
        let session = {
            let mut session = self.session();
            // Set under the lock, so that callers without a session also see this.
            self.is_closed.store(true, Ordering::Release);
            self.is_open.store(false, Ordering::Release);
            let delivered = session.as_ref().map_or_else(|| self.deliveries.last(), Session::delivered);
            self.deliveries.last.store(delivered, Ordering::Release);
            session.take()
        };
        self.deliveries.note_delivery();
        self.is_full.store(false, Ordering::Release);
        self.ring_bytes.store(0, Ordering::Relaxed);
        self.filled.notify_one();
        self.emptied.notify_waiters();
        self.sends.freed.notify_one();
        self.completions.freed.notify_one();
        session.map(Session::end).unwrap_or_default()
    }

    async fn push_in_line(&self, line: &WaitLine, class: Class, frame: &[u8]) -> Result<(), OutboxClosed> {
        let _turn = line.turn.lock().await;
        loop {
            match self.push_if_room(class, frame) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed) => return Err(OutboxClosed),
                Err(TrySendError::Full) => line.freed.notified().await,
            }
        }
    }

    /// Accesses the session, if it exists, and notifies callers waiting for freed room.
    fn with<T>(&self, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut guard = self.session();
        let session = guard.as_mut()?;
        let (had_room, had_reserve) = (session.has_place(Class::Ordinary), session.has_place(Class::Reserved));
        let done = act(session);
        let (has_room, has_reserve) = (session.has_place(Class::Ordinary), session.has_place(Class::Reserved));
        let is_full = !has_room || session.unsent().bytes() >= self.policy.unsent_max_bytes;
        let was_full = self.is_full.load(Ordering::Relaxed);
        self.ring_bytes.store(session.load().bytes(), Ordering::Relaxed);
        if is_full != was_full {
            self.is_full.store(is_full, Ordering::Release);
        }
        drop(guard);
        if was_full && !is_full {
            self.emptied.notify_waiters();
        }
        if has_room && !had_room {
            self.sends.freed.notify_one();
        }
        if has_reserve && !had_reserve {
            self.completions.freed.notify_one();
        }
        Some(done)
    }

    // No code panics while holding the lock; if it did, the queue would still hold whole frames.
    fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeliveryWatch {
    /// Wakes waiting callers, because the peer may have received more, or the session has ended.
    fn note_delivery(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.advanced.notify_waiters();
        }
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

impl<'a> DeliveryWait<'a> {
    fn begin_wait(watch: &'a DeliveryWatch) -> Self {
        watch.waiting.fetch_add(1, Ordering::AcqRel);
        Self(watch)
    }
}

impl Drop for DeliveryWait<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
