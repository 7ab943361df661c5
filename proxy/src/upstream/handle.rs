//! The near end of a slot's session: it lives across the sockets of a link, and any shard may write to it.
//!
//! Frames are encoded straight into the session's ring, so that whatever was written since the last turn leaves in one
//! WebSocket message. The lock is held for an append, never across an await.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;
use trunkline_protocol::service::{
    Answer, Attachment, Class, ECHO_KEY, Offer, Ping, ServiceMessage, Session, SessionError, SessionEvent, Transmit,
    UndeliveredFrames, encode_connection_data,
};

use super::{AppServerId, HubIndex};

/// A link, for as long as its session lives; never used again in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(u64);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The near end of a session.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    id: LinkId,
    hub: HubIndex,
    app: AppServerId,
    /// What may wait for the socket; what the session keeps in all is bounded by its ring.
    outbox_max_bytes: usize,
    /// `None` once it is over.
    session: Mutex<Option<Session>>,
    is_full: AtomicBool,
    is_open: AtomicBool,
    /// As the session tells too; but readers of clients ask this at each read.
    is_closed: AtomicBool,
    knows_causes: AtomicBool,
    /// Bytes in the ring, as of the last change: whoever measures takes no lock.
    ring_bytes: AtomicUsize,
    filled: Notify,
    emptied: Notify,
}

/// What a writer does next.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Piece(Transmit),
    /// Wait, at most until then.
    Idle(u64),
    /// Nothing more goes to this socket.
    Over,
}

impl LinkHandle {
    /// A link whose session begins.
    #[must_use]
    pub(crate) fn new(hub: HubIndex, app: AppServerId, outbox_max_bytes: usize, session: Session) -> Self {
        Self::beginning(hub, app, outbox_max_bytes, Some(session))
    }

    fn beginning(hub: HubIndex, app: AppServerId, outbox_max_bytes: usize, session: Option<Session>) -> Self {
        Self {
            id: LinkId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            hub,
            app,
            outbox_max_bytes,
            is_closed: AtomicBool::new(session.is_none()),
            session: Mutex::new(session),
            is_full: AtomicBool::new(false),
            is_open: AtomicBool::new(false),
            knows_causes: AtomicBool::new(false),
            ring_bytes: AtomicUsize::new(0),
            filled: Notify::new(),
            emptied: Notify::new(),
        }
    }

    /// No link at all: the home of a client connection that waits for its first one.
    #[must_use]
    pub(crate) fn nowhere(hub: HubIndex) -> Self {
        Self::beginning(hub, AppServerId::NONE, 0, None)
    }

    /// Which link this is.
    #[must_use]
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// The hub whose frames it carries.
    #[must_use]
    pub(crate) fn hub(&self) -> HubIndex {
        self.hub
    }

    /// The app server at its far end.
    #[must_use]
    pub(crate) fn app(&self) -> AppServerId {
        self.app
    }

    /// Whether its clients shall not be read, because too much waits for the socket or to be acknowledged.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Whether it has a socket.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether its session is over.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether the app server reads the causes of closes.
    #[must_use]
    pub(crate) fn knows_causes(&self) -> bool {
        self.knows_causes.load(Ordering::Relaxed)
    }

    /// Bytes that are kept until the app server has them, what waits included.
    #[must_use]
    pub(crate) fn ring_bytes(&self) -> usize {
        self.ring_bytes.load(Ordering::Relaxed)
    }

    /// Waits until there is room again, or the session is over. Cancel-safe.
    pub(crate) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if !self.is_full() {
                return;
            }
            emptied.await;
        }
    }

    /// Queues a message. Never refused: who fills a link is stopped by [`room`](Self::room) instead.
    pub(crate) fn send(&self, message: &ServiceMessage) {
        self.append(Class::Reserved, |buffer| message.encode(buffer));
    }

    /// Queues bytes of a client connection.
    pub(crate) fn send_data(&self, connection_id: &str, payload: &[u8], data_type: i64) {
        self.append(Class::Ordinary, |buffer| encode_connection_data(connection_id, payload, data_type, buffer));
    }

    fn append(&self, class: Class, encode: impl FnOnce(&mut BytesMut)) {
        if self.with(|session| session.push(class, encode)).is_some() {
            self.filled.notify_one();
        }
    }

    /// What the writer of this socket does next.
    #[must_use]
    pub(crate) fn poll(&self, attachment: Attachment, now_ms: u64) -> Outgoing {
        let outgoing = self.with(|session| match session.poll_transmit(attachment, now_ms) {
            Some(piece) => Outgoing::Piece(piece),
            None => session.poll_ping_timeout().map_or(Outgoing::Over, Outgoing::Idle),
        });
        outgoing.unwrap_or(Outgoing::Over)
    }

    /// Waits until the writer has something new to look at. Cancel-safe.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// What to dial with; `None` when the session is over.
    #[must_use]
    pub(crate) fn offer(&self) -> Option<Offer> {
        self.with(|session| session.offer())
    }

    /// A dial has succeeded: the new socket, and how many frames it gets again.
    ///
    /// # Errors
    /// When the answer makes no sense.
    pub(crate) fn attach(
        &self,
        offer: &Offer,
        answer: &Answer,
        now_ms: u64,
    ) -> Result<Option<(Attachment, u64)>, SessionError> {
        self.knows_causes.store(answer.capabilities.knows_causes, Ordering::Relaxed);
        let attached = self.with(|session| {
            let replayed = session.counters().sent().saturating_sub(answer.received);
            let attachment = session.handle_answer(offer, answer, now_ms)?;
            Ok(attachment.map(|attachment| (attachment, replayed)))
        });
        let attached = attached.transpose()?.flatten();
        self.is_open.store(attached.is_some(), Ordering::Release);
        Ok(attached)
    }

    /// The socket has ended; what that means for the session.
    pub(crate) fn detach(&self, attachment: Attachment, now_ms: u64) -> Option<SessionEvent> {
        self.is_open.store(false, Ordering::Release);
        self.with(|session| session.detach(attachment, now_ms)).flatten()
    }

    /// A turn was read: something was heard, and all frames up to `number` are taken, of which `bytes` bytes are new.
    pub(crate) fn handle_turn(&self, taken: Option<u64>, bytes: usize, now_ms: u64) {
        let is_due_earlier = self.with(|session| {
            session.handle_heard(now_ms);
            let before = session.poll_ping_timeout();
            if let Some(number) = taken {
                session.handle_taken(number, bytes, now_ms);
            }
            session.poll_ping_timeout() != before
        });
        if is_due_earlier == Some(true) {
            self.filled.notify_one();
        }
    }

    /// Has the app server send this text back, behind what is queued and what it has queued.
    pub(crate) fn ask_echo(&self, text: String) {
        let ping = Ping { pairs: vec![(ECHO_KEY.into(), text.into())] };
        if self.with(|session| session.push_echo(&ping)).is_some() {
            self.filled.notify_one();
        }
    }

    /// Takes the acknowledgement that may ride on a ping.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(crate) fn handle_ping(&self, ping: &Ping) -> Result<(), SessionError> {
        self.with(|session| session.handle_ping(ping).map(drop)).unwrap_or(Ok(()))
    }

    /// Counts the silence of the peer; to be called every [`tick_ms`](Self::tick_ms).
    pub(crate) fn handle_timeout(&self, now_ms: u64) -> Option<SessionEvent> {
        self.with(|session| session.handle_timeout(now_ms)).flatten()
    }

    /// When a session without a socket is to be looked at again.
    #[must_use]
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.with(|session| session.poll_timeout()).flatten()
    }

    /// How often silence is counted.
    #[must_use]
    pub(crate) fn tick_ms(&self) -> u64 {
        self.with(|session| session.tick_ms()).unwrap_or(u64::MAX)
    }

    /// Ends the session: nothing is queued any more, and nobody waits any more. What was in its ring.
    pub(crate) fn close(&self) -> UndeliveredFrames {
        let session = {
            let mut session = self.session();
            // Under the lock: who finds no session finds this, too.
            self.is_closed.store(true, Ordering::Release);
            session.take()
        };
        self.is_open.store(false, Ordering::Release);
        self.is_full.store(false, Ordering::Release);
        self.ring_bytes.store(0, Ordering::Relaxed);
        self.filled.notify_one();
        self.emptied.notify_waiters();
        session.map(Session::end).unwrap_or_default()
    }

    /// Does something with the session, if it lives, and looks at what that did to its room.
    fn with<T>(&self, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut guard = self.session();
        let session = guard.as_mut()?;
        let done = act(session);
        let is_full = session.unsent().bytes() >= self.outbox_max_bytes || !session.has_place(Class::Ordinary);
        let was_full = self.is_full.load(Ordering::Relaxed);
        self.ring_bytes.store(session.load().bytes(), Ordering::Relaxed);
        if is_full != was_full {
            self.is_full.store(is_full, Ordering::Release);
        }
        drop(guard);
        if was_full && !is_full {
            self.emptied.notify_waiters();
        }
        Some(done)
    }

    // No code panics while it holds the lock; should it ever, what is queued is still whole frames.
    fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
