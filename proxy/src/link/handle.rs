//! The near end of an open link: a byte-bounded outbox that any shard may write to.
//!
//! Frames are encoded straight into one buffer, so that whatever was written since the last turn leaves in one
//! WebSocket message. The lock is held for an append, never across an await.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use trunkline_protocol::service::{Counters, Ping, ServiceMessage, SessionError, encode_connection_data};

use super::{AppServerId, HubIndex};

/// A link, for as long as it is open; never used again in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkId(u64);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The near end of an open link.
#[derive(Debug)]
pub struct LinkHandle {
    id: LinkId,
    hub: HubIndex,
    app: AppServerId,
    limit_bytes: usize,
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    owing: Notify,
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    buffer: BytesMut,
    frames: u64,
    is_closed: bool,
}

/// What is to be written next.
#[derive(Debug)]
pub struct Outgoing {
    /// Whole frames, one behind the other.
    pub bytes: Bytes,
    /// How many.
    pub frames: u64,
}

impl LinkHandle {
    /// A link that has just been opened.
    #[must_use]
    pub fn new(hub: HubIndex, app: AppServerId, limit_bytes: usize) -> Self {
        Self {
            id: LinkId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            hub,
            app,
            limit_bytes,
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            owing: Notify::new(),
        }
    }

    /// Which link this is.
    #[must_use]
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The hub whose frames it carries.
    #[must_use]
    pub fn hub(&self) -> HubIndex {
        self.hub
    }

    /// The app server at its far end.
    #[must_use]
    pub fn app(&self) -> AppServerId {
        self.app
    }

    /// Whether what waits has reached the budget: clients whose home this is shall not be read then.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().buffer.len() >= self.limit_bytes
    }

    /// Whether it has been lost or given up.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Waits until there is room again, or the link is closed. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            {
                let state = self.state();
                if state.is_closed || state.buffer.len() < self.limit_bytes {
                    return;
                }
            }
            emptied.await;
        }
    }

    /// Queues a message. Never refused: who fills a link is stopped by [`room`](Self::room) instead.
    pub fn send(&self, message: &ServiceMessage) {
        self.append(|buffer| message.encode(buffer));
    }

    /// Queues bytes of a client connection.
    pub fn send_data(&self, connection_id: &str, payload: &[u8], data_type: i64) {
        self.append(|buffer| encode_connection_data(connection_id, payload, data_type, buffer));
    }

    fn append(&self, encode: impl FnOnce(&mut BytesMut)) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        encode(&mut state.buffer);
        state.frames += 1;
        state.counters.handle_sent();
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for something to write; `None` when the link is closed. Cancel-safe.
    pub async fn next_outgoing(&self) -> Option<Outgoing> {
        loop {
            {
                let mut state = self.state();
                if state.is_closed {
                    return None;
                }
                if !state.buffer.is_empty() {
                    let outgoing = Outgoing { bytes: state.buffer.split().freeze(), frames: state.frames };
                    state.frames = 0;
                    drop(state);
                    self.emptied.notify_waiters();
                    return Some(outgoing);
                }
            }
            self.filled.notified().await;
        }
    }

    /// Has the writer look at when it is to be woken next.
    pub fn wake_writer(&self) {
        self.owing.notify_one();
    }

    /// Waits for [`wake_writer`](Self::wake_writer). Cancel-safe.
    pub async fn woken(&self) {
        self.owing.notified().await;
    }

    /// Counts the frames of a turn: one lock for all of them, because deliveries wait behind this.
    pub fn handle_received(&self, frames: u64, now_ms: u64) {
        let mut state = self.state();
        (0..frames).for_each(|_| state.counters.handle_received(now_ms));
    }

    /// Takes the acknowledgement that may ride on a ping.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn handle_ping(&self, ping: &Ping) -> Result<(), SessionError> {
        self.state().counters.handle_ping(ping)
    }

    /// When an acknowledgement is due.
    #[must_use]
    pub fn acknowledge_at(&self) -> Option<u64> {
        self.state().counters.poll_timeout()
    }

    /// The acknowledgement that is due by now.
    #[must_use]
    pub fn acknowledgement(&self, now_ms: u64) -> Option<Ping> {
        self.state().counters.poll_ping(now_ms)
    }

    /// A keep-alive.
    #[must_use]
    pub fn keep_alive(&self) -> Ping {
        self.state().counters.keep_alive()
    }

    /// Ends it: nothing is queued any more, and nobody waits any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    // No code panics while it holds the lock; should it ever, what is queued is still whole frames.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(limit_bytes: usize) -> LinkHandle {
        LinkHandle::new(HubIndex::from(0), AppServerId::from(0), limit_bytes)
    }

    #[tokio::test]
    async fn what_was_queued_leaves_in_one_piece_and_in_order() {
        let link = link(1000);
        link.send_data("a", b"1", 0);
        link.send_data("b", b"2", 0);
        let outgoing = link.next_outgoing().await.unwrap();
        assert_eq!(outgoing.frames, 2);
        let mut frames = trunkline_protocol::service::FrameBuffer::default();
        frames.push(outgoing.bytes);
        let first = ServiceMessage::decode(&frames.next_body().unwrap().unwrap()).unwrap().unwrap();
        assert!(matches!(first, ServiceMessage::ConnectionData(data) if data.connection_id == "a"));
    }

    #[tokio::test]
    async fn a_full_link_has_room_again_once_it_was_written() {
        let link = link(1);
        link.send_data("a", b"1", 0);
        assert!(link.is_full());
        let (_, outgoing) = tokio::join!(link.room(), link.next_outgoing());
        assert!(outgoing.is_some() && !link.is_full());
    }

    #[tokio::test]
    async fn a_closed_link_takes_nothing_and_lets_all_go() {
        let link = link(1);
        link.send_data("a", b"1", 0);
        link.close();
        link.room().await;
        assert!(link.next_outgoing().await.is_none());
    }
}
