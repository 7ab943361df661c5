//! Outer half of an HTTP transport, shared by the requests of one client connection, and the reader of its
//! messages: frames from the pipe in, complete hub messages for GET responses out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;

use super::inner_half::InnerHalf;
use crate::engine::transport::websocket::{Unframed, unframe};
use crate::ground::limits::{AddressPermit, ClientPermit};

/// Capacity of a pipe per direction in bytes; the official server's limit.
pub(super) const PIPE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct OuterHalf {
    pub(crate) id: Arc<str>,
    transport: OnceLock<Transport>,
    /// Inner half until the first GET passes it to the client module, with a permit if a POST came first.
    inner: StdMutex<Option<(InnerHalf, Option<AddressPermit>)>>,
    /// Close cause for the inner half; the first one is kept.
    cause: Arc<OnceLock<Cause>>,
    upward: Mutex<WriteHalf<DuplexStream>>,
    downward: Mutex<MessageReader>,
    /// Cancels the waiting poll when another arrives.
    current_poll: StdMutex<CancellationToken>,
    /// Makes the waiting poll return without a message.
    released: Notify,
    /// Cancelled when the inner half closes: no more messages arrive, and POST bodies have no reader.
    inner_closed: CancellationToken,
    /// Cancelled on removal from the registry; ends waiting requests.
    removed: CancellationToken,
    active_gets: AtomicU32,
    /// Ticks since the last GET.
    idle_ticks: AtomicU32,
}

#[derive(Debug, Default)]
pub(crate) struct TransportPermits {
    /// Permit of the client, held for the connection's lifetime.
    pub connection: Option<Box<ClientPermit>>,
    /// Permit of a pipe opened by a POST, held until the first GET.
    pub pipe: Option<AddressPermit>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PollOutcome {
    Messages(Bytes),
    /// The poll timed out or was ended early; the client polls again.
    Empty,
    /// Replaced by a newer poll.
    Replaced,
    /// The connection is closed.
    Closed,
}

/// Reason why a POST body was not delivered.
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

    /// Ends waiting requests after removal from the registry.
    pub(super) fn mark_removed(&self) {
        self.removed.cancel();
    }

    /// Transport of the connection; `None` before the first GET.
    pub(crate) fn transport(&self) -> Option<Transport> {
        self.transport.get().copied()
    }

    /// Whether the connection uses this transport. The first call sets the transport.
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
    pub(crate) fn has_begun(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Cancelled when the inner half closes. Earlier messages may still be unread by the client.
    pub(crate) fn inner_closed(&self) -> CancellationToken {
        self.inner_closed.clone()
    }

    /// Sets the close cause unless already set. The inner half gets it with the end of its pipe.
    pub(crate) fn set_close_cause(&self, cause: Cause) {
        self.cause.get_or_init(|| cause);
    }

    /// Counts a GET for the lifetime of the guard.
    #[must_use]
    pub(crate) fn begin_get(self: &Arc<Self>) -> ActiveGet {
        self.active_gets.fetch_add(1, Ordering::Relaxed);
        ActiveGet(self.clone())
    }

    /// Writes a POST body to the inner half, after earlier POSTs and at the speed of its reader. Fails if the
    /// connection closes first, or the body breaks off.
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

    /// Waits for messages and returns all complete ones; `None` after the last. Cancel-safe.
    pub(crate) async fn next_messages(&self) -> Option<Bytes> {
        let mut downward = self.downward.lock().await;
        poll_fn(|cx| downward.poll_fill(cx)).await;
        if downward.is_closed() {
            self.inner_closed.cancel();
            // The client module keeps the connection until the end of its pipe.
            drop(self.upward.lock().await.shutdown().await);
        }
        downward.take_message()
    }

    /// Ends the waiting poll as if timed out; the client polls again, through another node.
    pub(crate) fn release_poll(&self) {
        self.released.notify_waiters();
    }

    /// Serves one poll, replacing the waiting one.
    pub(crate) async fn poll(&self, poll_timeout: Duration) -> PollOutcome {
        let own = CancellationToken::new();
        std::mem::replace(&mut *self.current_poll.lock().unwrap_or_else(PoisonError::into_inner), own.clone()).cancel();
        tokio::select! {
            // Checked first, so that remaining messages are left to the newer poll.
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

    /// Counts a tick; returns the number of ticks since the last GET.
    pub(super) fn tick(&self) -> u32 {
        if self.active_gets.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        self.idle_ticks.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Guard of a GET being served.
#[derive(Debug)]
pub(crate) struct ActiveGet(Arc<OuterHalf>);

impl Drop for ActiveGet {
    fn drop(&mut self) {
        self.0.idle_ticks.store(0, Ordering::Relaxed);
        self.0.active_gets.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Approximate maximum of message bytes per response. The rest waits in the pipe and blocks its writer.
const BATCH_BYTES: usize = 64 * 1024;

/// Reading half of the pipe's outer end, and data read from it.
#[derive(Debug)]
pub(super) struct MessageReader {
    pipe: ReadHalf<DuplexStream>,
    /// Beginning of an incomplete frame.
    partial: BytesMut,
    /// Complete messages not yet taken.
    ready: BytesMut,
    is_closed: bool,
}

impl MessageReader {
    pub(super) fn new(pipe: ReadHalf<DuplexStream>) -> Self {
        Self { pipe, partial: BytesMut::new(), ready: BytesMut::new(), is_closed: false }
    }

    /// Whether no messages follow the ready ones.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Waits for a message or the end of the pipe, then reads all available data.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_closed && self.ready.len() < BATCH_BYTES {
            match poll_read_buf(Pin::new(&mut self.pipe), cx, &mut self.partial) {
                Poll::Ready(Ok(1..)) => self.unframe(),
                Poll::Ready(_) => self.is_closed = true,
                Poll::Pending if self.ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    pub(super) fn take_message(&mut self) -> Option<Bytes> {
        (!self.ready.is_empty()).then(|| std::mem::take(&mut self.ready).freeze())
    }

    fn unframe(&mut self) {
        while let Some(frame) = unframe(&mut self.partial) {
            match frame {
                Unframed::Payload(payload) => self.ready.extend_from_slice(&payload),
                Unframed::Close => self.is_closed = true,
                Unframed::Other => {}
            }
        }
        if self.partial.is_empty() {
            // Frees the memory, so that an idle connection has no buffer.
            self.partial = BytesMut::new();
        }
    }
}
