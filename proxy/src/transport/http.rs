//! Client connections that are carried by requests: Server-Sent Events and long polling.
//!
//! ```text
//!  POST ──► upward ───┐
//!                     ╞══ pipe ══ Socket ── the client room, on the shard that owns the connection
//!  GET  ◄── downward ─┘
//! ```
//!
//! The client room speaks to a pipe as it does to any socket. The far end lies here, where a request finds it on
//! whatever thread it is served. Upward go the bytes of hub messages as they are; downward come the frames of the
//! WebSocket transport, because they mark where messages end, and are taken apart for the request that waits.

mod downward;
mod near;
mod registry;

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf, duplex, split};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;

use downward::Downward;

pub(crate) use near::Near;
pub(crate) use registry::Registry;

/// What may lie in a pipe, each way, before its writer waits; the official server's.
const PIPE_BYTES: usize = 64 * 1024;

/// The far end of a client connection's pipe.
#[derive(Debug)]
pub(crate) struct Carried {
    id: Arc<str>,
    transport: OnceLock<Transport>,
    /// The client room's end, until the first GET hands it over.
    near: StdMutex<Option<Near>>,
    /// Why it has ended, for the client room; the first word counts.
    cause: Arc<OnceLock<Cause>>,
    upward: Mutex<WriteHalf<DuplexStream>>,
    downward: Mutex<Downward>,
    /// Ends the poll that waits, when another one comes.
    turn: StdMutex<CancellationToken>,
    /// Nothing more comes from the client room: what a POST brings is not for anybody.
    over: CancellationToken,
    /// It is not to be found any more: no request has any business here.
    gone: CancellationToken,
    /// GETs that are being served.
    present: AtomicU32,
    /// Ticks since the last of them.
    idle_ticks: AtomicU32,
}

/// What came of a poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Messages(Bytes),
    /// Nothing, for so long that the client shall ask again.
    Nothing,
    /// Another poll took its place.
    Replaced,
    /// The connection is over.
    Over,
}

/// Why a POST's body was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError<E> {
    /// The connection is over.
    #[error("the connection is over")]
    Over,
    /// The body broke off.
    #[error("the body can't be read")]
    Body(E),
}

impl Carried {
    fn new(id: &str) -> Self {
        let (near, far) = duplex(PIPE_BYTES);
        let (read, write) = split(far);
        let gone = CancellationToken::new();
        let over = gone.child_token();
        let cause = Arc::default();
        Self {
            id: id.into(),
            transport: OnceLock::new(),
            near: StdMutex::new(Some(Near::new(near, over.clone(), Arc::clone(&cause)))),
            cause,
            upward: Mutex::new(write),
            downward: Mutex::new(Downward::new(read)),
            turn: StdMutex::default(),
            over,
            gone,
            present: AtomicU32::new(0),
            idle_ticks: AtomicU32::new(0),
        }
    }

    #[must_use]
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its transport; `None` before the first GET.
    #[must_use]
    pub(crate) fn transport(&self) -> Option<Transport> {
        self.transport.get().copied()
    }

    /// Whether it is of this transport; the first who asks decides.
    #[must_use]
    pub(crate) fn bind(&self, transport: Transport) -> bool {
        *self.transport.get_or_init(|| transport) == transport
    }

    /// The client room's end of the pipe, for the first who asks.
    #[must_use]
    pub(crate) fn begin(&self) -> Option<Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the client room has its end of the pipe.
    #[must_use]
    pub(crate) fn has_begun(&self) -> bool {
        self.near.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Tells when it is over, whatever its client has still to read.
    #[must_use]
    pub(crate) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// Says why it ends, if nobody has: the client room learns it with the end of its pipe.
    pub(crate) fn say_why(&self, cause: Cause) {
        self.cause.get_or_init(|| cause);
    }

    /// Counts a GET for as long as what it gives back lives.
    #[must_use]
    pub(crate) fn attend(self: &Arc<Self>) -> Presence {
        self.present.fetch_add(1, Ordering::Relaxed);
        Presence(self.clone())
    }

    /// Takes what a POST brings, once those before it are done and as fast as it is read.
    ///
    /// # Errors
    /// When the connection ends before, or the body breaks off.
    pub(crate) async fn send<E>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), SendError<E>> {
        let sent = self.over.run_until_cancelled(async {
            let mut upward = self.upward.lock().await;
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(SendError::Body)?;
                upward.write_all(&piece).await.map_err(|_| SendError::Over)?;
            }
            Ok(())
        });
        sent.await.unwrap_or(Err(SendError::Over))
    }

    /// Whole hub messages, all that are there, once there are some; `None` when there will be none. Dropped before it
    /// is done, it has taken nothing.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        let mut downward = self.downward.lock().await;
        poll_fn(|cx| downward.poll_fill(cx)).await;
        if downward.is_over() {
            self.over.cancel();
            // The client room waits for this end of the pipe before it forgets the connection.
            drop(self.upward.lock().await.shutdown().await);
        }
        downward.take()
    }

    /// One poll: it takes the place of the one that waits.
    pub(crate) async fn poll(&self, patience: Duration) -> Polled {
        let turn = CancellationToken::new();
        let replaced = std::mem::replace(&mut *self.turn.lock().unwrap_or_else(PoisonError::into_inner), turn.clone());
        replaced.cancel();
        tokio::select! {
            // First of all, so that what could still be taken is left to the poll that waits for its answer.
            biased;
            () = turn.cancelled() => Polled::Replaced,
            next = timeout(patience, self.next()) => match next {
                Ok(Some(messages)) => Polled::Messages(messages),
                Ok(None) => Polled::Over,
                Err(_) => Polled::Nothing,
            },
            () = self.gone.cancelled() => Polled::Over,
        }
    }

    /// One tick without a GET; how many there were since the last one.
    fn idle(&self) -> u32 {
        if self.present.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        self.idle_ticks.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A GET that is being served.
#[derive(Debug)]
pub(crate) struct Presence(Arc<Carried>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.idle_ticks.store(0, Ordering::Relaxed);
        self.0.present.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
