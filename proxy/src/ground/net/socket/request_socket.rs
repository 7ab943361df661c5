//! Client socket below HTTP/1.1. It tracks whether a byte of the next head has arrived, whether a response waits to be
//! read, and whether the start of an endless response has been sent, so that the server may release the socket.

use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(crate) struct RequestProgress {
    /// A request was passed to the service, so this is a kept-alive socket.
    has_served: AtomicBool,
    /// A byte was read since the server began waiting for a head.
    has_read: AtomicBool,
    /// The client does not read pending output.
    is_stuck: AtomicBool,
    /// The response body is waiting for earlier output to be sent.
    waits_for_flush: AtomicBool,
    /// Receiver of the socket after that.
    taker: Mutex<Option<oneshot::Sender<TcpStream>>>,
}

/// Handover of a plain TCP socket once the server has sent the beginning of a response. Stored in the request's
/// extensions.
#[derive(Debug, Clone)]
pub(crate) struct SocketHandover(Arc<RequestProgress>);

/// Client socket for HTTP/1.1 with hyper.
#[derive(Debug)]
pub struct RequestSocket<S> {
    stream: S,
    /// Bytes of a head read before hyper took over.
    early: Bytes,
    pub(crate) progress: Arc<RequestProgress>,
}

impl RequestProgress {
    pub(crate) fn has_served(&self) -> bool {
        self.has_served.load(Ordering::Relaxed)
    }

    pub(crate) fn note_request(&self) {
        self.has_served.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_head(&self) {
        self.has_read.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// Takes the sender that hands over the socket, once all output has been sent.
    #[must_use]
    pub(crate) fn take_taker(&self) -> Option<oneshot::Sender<TcpStream>> {
        if self.waits_for_flush.load(Ordering::Relaxed) { None } else { self.taker().take() }
    }

    fn taker(&self) -> MutexGuard<'_, Option<oneshot::Sender<TcpStream>>> {
        self.taker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_write<T>(&self, written: Poll<T>) -> Poll<T> {
        self.is_stuck.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl SocketHandover {
    pub(crate) fn of(progress: &Arc<RequestProgress>) -> Self {
        Self(Arc::clone(progress))
    }

    /// Requests the socket once the server has written its current output. Called by the response body, which is then
    /// polled again.
    pub(crate) fn begin(&self, taker: oneshot::Sender<TcpStream>) {
        *self.0.taker() = Some(taker);
        self.0.waits_for_flush.store(true, Ordering::Relaxed);
    }

    /// Whether all output since `begin` has been sent.
    pub(crate) fn is_due(&self) -> bool {
        !self.0.waits_for_flush.load(Ordering::Relaxed)
    }
}

impl<S> RequestSocket<S> {
    #[cfg(test)]
    pub(crate) fn new(stream: S) -> Self {
        Self::continued(stream, Bytes::new())
    }

    /// Wraps a stream after these bytes of the next head were read.
    pub(crate) fn continued(stream: S, early: Bytes) -> Self {
        Self { stream, early, progress: Arc::default() }
    }

    /// Returns the stream. After a complete head no early bytes remain.
    #[must_use]
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

#[cfg(unix)]
impl<S: AsRawFd> AsRawFd for RequestSocket<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = if self.early.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buffer)
        } else {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.copy_to_bytes(count));
            Poll::Ready(Ok(()))
        };
        if buffer.filled().len() > filled {
            self.progress.has_read.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RequestSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let waits_for_flush = &self.progress.waits_for_flush;
        if waits_for_flush.load(Ordering::Relaxed) && matches!(flushed, Poll::Ready(Ok(()))) {
            waits_for_flush.store(false, Ordering::Relaxed);
            // The flushing task also polls the body.
            cx.waker().wake_by_ref();
        }
        self.progress.note_write(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn early_bytes_come_first_and_count_as_read() {
        let (near, mut far) = duplex(64);
        let mut socket = RequestSocket::continued(near, Bytes::from_static(b"GET"));
        let progress = socket.progress.clone();
        assert!(!progress.has_read());
        let mut two = [0; 2];
        assert_eq!(socket.read(&mut two).await.unwrap(), 2);
        assert!(progress.has_read());
        far.write_all(b" /").await.unwrap();
        let mut rest = [0; 3];
        socket.read_exact(&mut rest).await.unwrap();
        assert_eq!((&two, &rest), (b"GE", b"T /"));
        progress.begin_head();
        assert!(!progress.has_read());
    }

    #[tokio::test]
    async fn a_socket_is_stuck_while_its_client_does_not_read() {
        let (near, mut far) = duplex(2);
        let mut socket = RequestSocket::new(near);
        let progress = socket.progress.clone();
        let mut read = [0; 4];
        let (written, _) = tokio::join!(socket.write_all(b"1234"), async {
            assert!(progress.is_stuck());
            far.read_exact(&mut read).await
        });
        written.unwrap();
        assert!(!progress.is_stuck());
    }
}
