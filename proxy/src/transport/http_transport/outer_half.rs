//! Outer half of an HTTP transport: what the requests of one client connection share.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf, duplex, split};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;

use super::inner_half::InnerHalf;
use super::message_reader::MessageReader;
use crate::limits::AddressPermit;

/// Bytes that a pipe holds in each direction before its writer waits; the official server's limit.
pub(super) const PIPE_BYTES: usize = 64 * 1024;

/// Outer half of a client connection, used by all of its requests.
#[derive(Debug)]
pub(crate) struct OuterHalf {
    id: Arc<str>,
    transport: OnceLock<Transport>,
    /// The inner half, until the first GET hands it to the client module; a POST that came before it has a permit.
    inner: StdMutex<Option<(InnerHalf, Option<AddressPermit>)>>,
    /// Why it has closed, for the inner half; the first cause counts.
    cause: Arc<OnceLock<Cause>>,
    upward: Mutex<WriteHalf<DuplexStream>>,
    downward: Mutex<MessageReader>,
    /// Ends the waiting poll when another one comes.
    current_poll: StdMutex<CancellationToken>,
    /// Has the waiting poll answered without a message.
    released: Notify,
    /// The inner half is closed: nothing more comes from it, and nobody reads what a POST brings.
    inner_closed: CancellationToken,
    /// It is out of the registry: requests that still wait here end.
    removed: CancellationToken,
    /// GETs that are being served.
    active_gets: AtomicU32,
    /// Ticks since the last of them.
    idle_ticks: AtomicU32,
}

/// Permits of a connection that begins.
#[derive(Debug, Default)]
pub(crate) struct TransportPermits {
    /// Permit of its address, for as long as it lives.
    pub connection: Option<Box<AddressPermit>>,
    /// Permit of a pipe that a POST makes, until the first GET.
    pub pipe: Option<AddressPermit>,
}

/// Result of a poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PollOutcome {
    Messages(Bytes),
    /// No message within the poll time-out, or it is to end before: the client polls again.
    Empty,
    /// Another poll took its place.
    Replaced,
    /// The connection is closed.
    Closed,
}

/// Why a POST's body was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError<E> {
    #[error("the connection is over")]
    Closed,
    #[error("the body can't be read")]
    Body(E),
}

impl OuterHalf {
    pub(super) fn new(id: Arc<str>, permits: TransportPermits) -> Self {
        let (inner, outer) = duplex(PIPE_BYTES);
        let (read, write) = split(outer);
        let removed = CancellationToken::new();
        let inner_closed = removed.child_token();
        let cause = Arc::default();
        let inner = InnerHalf::new(inner, inner_closed.clone(), Arc::clone(&cause), permits.connection);
        Self {
            id,
            transport: OnceLock::new(),
            inner: StdMutex::new(Some((inner, permits.pipe))),
            cause,
            upward: Mutex::new(write),
            downward: Mutex::new(MessageReader::new(read)),
            current_poll: StdMutex::default(),
            released: Notify::new(),
            inner_closed,
            removed,
            active_gets: AtomicU32::new(0),
            idle_ticks: AtomicU32::new(0),
        }
    }

    #[must_use]
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Ends the requests that wait here, because it is out of the registry.
    pub(super) fn mark_removed(&self) {
        self.removed.cancel();
    }

    /// Transport of the connection; `None` before the first GET.
    #[must_use]
    pub(crate) fn transport(&self) -> Option<Transport> {
        self.transport.get().copied()
    }

    /// Whether the connection has this transport; the first call decides.
    #[must_use]
    pub(crate) fn bind(&self, transport: Transport) -> bool {
        *self.transport.get_or_init(|| transport) == transport
    }

    /// Hands over the inner half; `None` after the first call.
    #[must_use]
    pub(crate) fn take_inner_half(&self) -> Option<InnerHalf> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(inner, _)| inner)
    }

    /// Whether the inner half was handed over.
    #[must_use]
    pub(crate) fn has_begun(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Token of the closing of the inner half; the client may still have to read what came before.
    #[must_use]
    pub(crate) fn inner_closed(&self) -> CancellationToken {
        self.inner_closed.clone()
    }

    /// Sets why the connection closes, unless that is set: the inner half learns it with the end of its pipe.
    pub(crate) fn set_close_cause(&self, cause: Cause) {
        self.cause.get_or_init(|| cause);
    }

    /// Counts a GET for the lifetime of the result.
    #[must_use]
    pub(crate) fn begin_get(self: &Arc<Self>) -> ActiveGet {
        self.active_gets.fetch_add(1, Ordering::Relaxed);
        ActiveGet(self.clone())
    }

    /// Writes the body of a POST to the inner half, after the POSTs before it and as fast as it is read there.
    ///
    /// # Errors
    /// When the connection closes before, or the body breaks off.
    pub(crate) async fn send<E>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), SendError<E>> {
        let sent = self.inner_closed.run_until_cancelled(async {
            let mut upward = self.upward.lock().await;
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(SendError::Body)?;
                upward.write_all(&piece).await.map_err(|_| SendError::Closed)?;
            }
            Ok(())
        });
        sent.await.unwrap_or(Err(SendError::Closed))
    }

    /// Waits for messages and returns all that are there, each whole; `None` after the last ones. Cancel-safe.
    pub(crate) async fn next_messages(&self) -> Option<Bytes> {
        let mut downward = self.downward.lock().await;
        poll_fn(|cx| downward.poll_fill(cx)).await;
        if downward.is_closed() {
            self.inner_closed.cancel();
            // The client module waits for the end of its pipe before it forgets the connection.
            drop(self.upward.lock().await.shutdown().await);
        }
        downward.take()
    }

    /// Answers the poll that waits, as if its time were over: the client polls again, by another node.
    pub(crate) fn release_poll(&self) {
        self.released.notify_waiters();
    }

    /// Answers one poll, and ends the one that waits.
    pub(crate) async fn poll(&self, poll_timeout: Duration) -> PollOutcome {
        let own = CancellationToken::new();
        std::mem::replace(&mut *self.current_poll.lock().unwrap_or_else(PoisonError::into_inner), own.clone()).cancel();
        tokio::select! {
            // First of all, so that what could still be taken is left to the poll that waits for its answer.
            biased;
            () = own.cancelled() => PollOutcome::Replaced,
            next = timeout(poll_timeout, self.next_messages()) => match next {
                Ok(Some(messages)) => PollOutcome::Messages(messages),
                Ok(None) => PollOutcome::Closed,
                Err(_) => PollOutcome::Empty,
            },
            () = self.removed.cancelled() => PollOutcome::Closed,
            () = self.released.notified() => PollOutcome::Empty,
        }
    }

    /// Counts a tick, and returns the ticks since the last GET.
    pub(super) fn tick(&self) -> u32 {
        if self.active_gets.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        self.idle_ticks.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Guard of a GET that is being served.
#[derive(Debug)]
pub(crate) struct ActiveGet(Arc<OuterHalf>);

impl Drop for ActiveGet {
    fn drop(&mut self) {
        self.0.idle_ticks.store(0, Ordering::Relaxed);
        self.0.active_gets.fetch_sub(1, Ordering::Relaxed);
    }
}
