//! Client sockets, shared by the task that reads and by the deliveries that write.
//!
//! TCP takes the fast path, plain and below TLS: it is written to directly, without a task. Everything else (a pipe in
//! memory, a socket of another runtime) is boxed: its writes are queued and flushed by a task.
//!
//! While a socket carries HTTP, a [`StallGuard`] closes it when an answer is not read for too long, and a
//! [`RequestSocket`] tells whether a request has begun.

mod drained;
mod half_close;
mod request_socket;
mod stall_guard;
#[cfg(feature = "tls")]
mod tls_socket;
mod write_stall;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use drained::read_now;
pub(crate) use half_close::half_close;
pub(crate) use request_socket::{RequestProgress, RequestSocket};
pub(crate) use stall_guard::StallGuard;
#[cfg(feature = "tls")]
pub(crate) use tls_socket::TlsSocket;
pub(crate) use write_stall::{CurrentStallLimit, WriteStallLimit};

/// Byte stream that can be boxed as a client socket.
pub(crate) trait SocketStream: AsyncRead + AsyncWrite + Unpin {}

impl SocketStream for TokioIo<Upgraded> {}

impl SocketStream for tokio::io::DuplexStream {}

#[cfg(test)]
impl SocketStream for tokio::io::Empty {}

/// Ends the writing direction as far as that is possible at once.
fn shut_down<S: AsyncWrite + Unpin + ?Sized>(mut stream: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut stream).poll_shutdown(&mut cx);
}

/// Client socket. All methods take `&self`, because a shard is one thread.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
    Boxed(Box<RefCell<BoxedSocket>>),
    /// None: its client is away.
    Away,
}

/// Client socket that is not TCP.
pub(crate) struct BoxedSocket {
    /// `None` once it was cut.
    stream: Option<Box<dyn SocketStream>>,
    /// Waker of the task that waits for bytes: it has to learn of a cut, which the stream itself would not tell.
    reader: Option<Waker>,
}

impl Socket {
    /// Boxes a stream that is not TCP.
    #[must_use]
    pub(crate) fn boxed(stream: impl SocketStream + 'static) -> Self {
        Socket::Boxed(Box::new(RefCell::new(BoxedSocket { stream: Some(Box::new(stream)), reader: None })))
    }

    /// Reads into `buffer` when there is something to read; 0 is the end. Cancel-safe.
    ///
    /// The buffer is borrowed only while bytes are there, so that a thousand waiting sockets share one.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match read_now(stream, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other),
                }
            },
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.poll_read(cx, buffer),
            Socket::Boxed(boxed) => boxed.borrow_mut().poll_read(cx, buffer),
            Socket::Away => Poll::Ready(Ok(0)),
        }
    }

    /// Writes what the socket takes right now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing, or has no fast path; else the socket failed.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // This bypasses the readiness that the runtime keeps elsewhere in memory: the system knows best. A task
            // that then waits for room asks the runtime, which finds out by itself.
            (Socket::Tcp(stream), [only]) => SockRef::from(stream).send(only),
            (Socket::Tcp(stream), several) => stream.try_write_vectored(several),
            #[cfg(feature = "tls")]
            (Socket::Tls(tls), slices) => tls.try_write(slices),
            (Socket::Boxed(_), _) => Err(io::ErrorKind::WouldBlock.into()),
            (Socket::Away, _) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether bytes that were taken by [`try_write`](Self::try_write) still wait for the system: records of TLS.
    #[must_use]
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.has_unsent(),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => false,
        }
    }

    /// Descriptor of a socket of the system that is written to directly.
    #[must_use]
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Tcp(stream) => Some(stream.as_fd()),
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => Some(tls.descriptor()),
            Socket::Boxed(_) | Socket::Away => None,
        }
    }

    /// Whether its descriptor takes bytes only as [`seal`](Self::seal) makes them.
    #[must_use]
    pub(crate) fn is_sealed(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(_) => true,
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => false,
        }
    }

    /// Encrypts bytes behind those in `sealed`, for a caller who writes them to the descriptor, and leaves the rest to
    /// [`keep_unsent`](Self::keep_unsent). Returns how many were encrypted.
    ///
    /// # Errors
    /// `WouldBlock` when earlier bytes wait, or nothing is encrypted on this socket; else it was cut.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without TLS nothing is encrypted"))]
    pub(crate) fn seal(&self, slices: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.seal(slices, sealed),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Keeps encrypted bytes that the descriptor did not take.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without TLS nothing is encrypted"))]
    pub(crate) fn keep_unsent(&self, sealed: &[u8]) {
        #[cfg(feature = "tls")]
        if let Socket::Tls(tls) = self {
            tls.keep_unsent(sealed);
        }
    }

    /// Writes when the socket takes something.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => loop {
                ready!(stream.poll_write_ready(cx))?;
                match stream.try_write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other),
                }
            },
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.poll_write(cx, slices),
            Socket::Boxed(boxed) => boxed.borrow_mut().poll_write(cx, slices),
            Socket::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Flushes what was written: a TLS stream may keep bytes that the socket below did not take.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(_) | Socket::Away => Poll::Ready(Ok(())),
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.poll_flush(cx),
            Socket::Boxed(boxed) => boxed.borrow_mut().poll_flush(cx),
        }
    }

    /// Shuts both directions down: the reading task sees the end.
    pub(crate) fn cut(&self) {
        match self {
            // It fails only where the peer was faster, and then the reader sees the end too.
            Socket::Tcp(stream) => drop(SockRef::from(stream).shutdown(std::net::Shutdown::Both)),
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.cut(),
            Socket::Boxed(boxed) => boxed.borrow_mut().cut(),
            Socket::Away => {}
        }
    }
}

impl BoxedSocket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        let mut buffer = ReadBuf::new(buffer);
        if Pin::new(stream).poll_read(cx, &mut buffer)?.is_pending() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        Pin::new(stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_flush(cx))
    }

    fn cut(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            shut_down(&mut stream);
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for BoxedSocket {
    /// Sends the end, so that the peer knows that nothing was cut off.
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            shut_down(stream);
        }
    }
}

impl std::fmt::Debug for BoxedSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoxedSocket").field("is_cut", &self.stream.is_none()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Socket::Tcp(_) => "Socket::Tcp",
            #[cfg(feature = "tls")]
            Socket::Tls(_) => "Socket::Tls",
            Socket::Boxed(_) => "Socket::Boxed",
            Socket::Away => "Socket::Away",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_after_a_short_read_are_read_and_so_is_the_end_that_came_with_them() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = Socket::Tcp(listener.accept().await.unwrap().0);
        let mut buffer = [0; 8];
        for word in [b"one", b"two"] {
            far.write_all(word).await.unwrap();
            assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await.unwrap(), word.len());
        }
        far.write_all(b"end").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await.unwrap(), 3);
        assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn both_ends_of_a_boxed_socket_see_that_it_was_cut() {
        let (near, mut far) = tokio::io::duplex(64);
        let socket = Socket::boxed(near);
        let mut buffer = [0; 8];
        let (read, ()) = tokio::join!(poll_fn(|cx| socket.poll_read(cx, &mut buffer)), async {
            tokio::task::yield_now().await;
            socket.cut();
        });
        assert_eq!(read.unwrap(), 0);
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(b"late")])).await.is_err());
    }
}
