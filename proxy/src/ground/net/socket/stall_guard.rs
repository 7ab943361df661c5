//! Client socket below HTTP that fails and resets if a write stalls for too long.
//!
//! hyper polls a response body only after the socket has accepted earlier output, so a stalled response can't detect
//! that its client connection has closed. So the request handler sets the limit in advance, and the socket's owner
//! enforces it.

use std::future::pending;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Time for a client to read the rest after its connection has closed, as for a WebSocket's close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Write stall limit: how long a response may wait for the client to read.
#[derive(Debug, Clone, Default)]
pub(crate) enum WriteStallLimit {
    /// No limit; the client may read at any speed.
    #[default]
    Unlimited,
    /// Unlimited while the client connection is open, then limited by a grace period.
    UntilClosed(ConnectionClose),
    /// Maximum time without progress.
    Idle(Duration),
    /// Like `Idle`, but ends immediately on cancellation, when another response needs the permit.
    IdleUnless(Duration, CancellationToken),
}

/// Close of a client connection, and the deadline after it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionClose {
    connection: CancellationToken,
    /// First stall seen after the close. A client that reads a byte occasionally gains no time.
    first_stall: Arc<OnceLock<Instant>>,
}

impl WriteStallLimit {
    /// Limits the responses of a client connection; closing it cancels this token.
    pub(crate) fn until_closed(connection: CancellationToken) -> Self {
        Self::UntilClosed(ConnectionClose { connection, first_stall: Arc::default() })
    }

    pub(crate) fn attach<B>(self, response: &mut http::Response<B>) {
        response.extensions_mut().insert(self);
    }

    pub(crate) fn take<B>(response: &mut http::Response<B>) -> Option<Self> {
        response.extensions_mut().remove()
    }

    /// Waits until a stall that starts now reaches the limit.
    pub(crate) async fn reached(self) {
        match self {
            Self::Unlimited => pending().await,
            Self::UntilClosed(close) => {
                close.connection.cancelled().await;
                sleep_until(*close.first_stall.get_or_init(Instant::now) + CLOSE_GRACE).await;
            }
            Self::Idle(time) => sleep(time).await,
            Self::IdleUnless(time, displaced) => drop(timeout(time, displaced.cancelled()).await),
        }
    }
}

/// Limit of the current response; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CurrentStallLimit(Arc<Mutex<WriteStallLimit>>);

impl CurrentStallLimit {
    pub(crate) fn set(&self, limit: WriteStallLimit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    pub(crate) fn get(&self) -> WriteStallLimit {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TCP socket with a limit on write stalls. Placed below TLS, so that only progress of the kernel counts.
pub(crate) struct StallGuard {
    stream: TcpStream,
    limit: CurrentStallLimit,
    deadline: Option<BoxFuture<'static, ()>>,
}

impl StallGuard {
    /// Applies the limit that is current when a stall begins.
    pub(crate) fn new(stream: TcpStream, limit: CurrentStallLimit) -> Self {
        Self { stream, limit, deadline: None }
    }

    #[cfg(test)]
    pub(crate) fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    #[must_use]
    pub(crate) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Returns the result of a write, or an error once the stall reaches the limit.
    fn check_stall(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| self.limit.get().reached().boxed());
        ready!(deadline.poll_unpin(cx));
        // A reset, because the kernel would otherwise keep offering unread data. Fails only if the client has already
        // closed.
        drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for StallGuard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for StallGuard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for StallGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StallGuard").field("stream", &self.stream).field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::{unconstrained, yield_now};
    use tokio::time::{Instant, sleep, timeout};
    use tokio_util::sync::CancellationToken;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn ends(limit: WriteStallLimit) -> (StallGuard, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let current = CurrentStallLimit::default();
        current.set(limit);
        (StallGuard::new(listener.accept().await.unwrap().0, current), far)
    }

    /// Writes until the socket is full.
    fn fill(near: &mut StallGuard) -> io::Result<()> {
        while let Some(written) = unconstrained(near.write(&[0; 64 * 1024])).now_or_never() {
            written?;
        }
        Ok(())
    }

    /// Reads all available data.
    fn drain(far: &mut TcpStream) {
        while let Some(Ok(1..)) = unconstrained(far.read(&mut [0; 64 * 1024])).now_or_never() {}
    }

    /// Reads until the other end is writable again. The kernel moves data with a delay, during which the test clock
    /// stands still.
    async fn make_room(near: &StallGuard, far: &mut TcpStream) {
        while unconstrained(near.get_ref().writable()).now_or_never().is_none() {
            drain(far);
            yield_now().await;
        }
    }

    /// Writes until an error occurs.
    async fn failure(near: &mut StallGuard) -> io::ErrorKind {
        loop {
            if let Err(error) = near.write_all(&[0; 64 * 1024]).await {
                return error.kind();
            }
        }
    }

    // These tests use a paused clock, which advances whenever every task is idle.

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_reset_a_while_after_its_connection_has_closed() {
        let closed = CancellationToken::new();
        let (mut near, mut far) = ends(WriteStallLimit::until_closed(closed.clone())).await;
        assert!(timeout(3600 * SECOND, failure(&mut near)).await.is_err(), "its connection lives");
        closed.cancel();
        let ended = Instant::now();
        assert_eq!(failure(&mut near).await, io::ErrorKind::TimedOut);
        assert_eq!(ended.elapsed().as_secs(), 5);
        drop(near);
        let error = far.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn reading_now_and_then_gains_no_time_once_the_connection_has_closed() {
        let closed = CancellationToken::new();
        closed.cancel();
        let (mut near, mut far) = ends(WriteStallLimit::until_closed(closed)).await;
        let began = Instant::now();
        while fill(&mut near).is_ok() {
            drain(&mut far);
            // sleep: time is paused, and passing it is what the test is about.
            sleep(SECOND).await;
        }
        assert!((5..=6).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_whose_place_is_needed_ends_as_soon_as_it_stands_still() {
        let displaced = CancellationToken::new();
        let (mut near, _far) = ends(WriteStallLimit::IdleUnless(60 * SECOND, displaced.clone())).await;
        assert!(timeout(59 * SECOND, failure(&mut near)).await.is_err(), "nobody needs it");
        let ended = Instant::now();
        displaced.cancel();
        assert_eq!((failure(&mut near).await, ended.elapsed().as_secs()), (io::ErrorKind::TimedOut, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_that_moves_restarts_the_limit_of_an_idle_write() {
        let (mut near, mut far) = ends(WriteStallLimit::Idle(60 * SECOND)).await;
        for _ in 0..5 {
            fill(&mut near).unwrap();
            // sleep: time is paused, and passing it is what the test is about.
            sleep(50 * SECOND).await;
            make_room(&near, &mut far).await;
        }
        fill(&mut near).unwrap();
        let filled = Instant::now();
        assert_eq!(failure(&mut near).await, io::ErrorKind::TimedOut);
        assert_eq!(filled.elapsed().as_secs(), 60);
    }
}
