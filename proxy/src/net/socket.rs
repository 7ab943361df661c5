//! Client sockets, shared by the task that reads and by the deliveries that write.
//!
//! Only plain TCP takes the fast path: it is written to directly, without a task. Everything else (TLS, a pipe in
//! memory, a socket of another runtime) is boxed: its writes are queued and flushed by a task.
//!
//! While a socket carries HTTP, a [`StallGuard`] closes it when an answer is not read for too long, and a
//! [`RequestSocket`] tells whether a request has begun.

mod half_close;
mod request_socket;
mod stall_guard;
mod write_stall;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use super::tls::TlsStream;

pub(crate) use half_close::half_close;
pub(crate) use request_socket::{RequestProgress, RequestSocket};
pub(crate) use stall_guard::StallGuard;
pub(crate) use write_stall::{CurrentStallLimit, WriteStallLimit};

/// Byte stream that can be boxed as a client socket.
pub(crate) trait SocketStream: AsyncRead + AsyncWrite + Unpin {
    /// Closes both directions, with the end of the protocol if there is room for it.
    fn cut(&mut self) {
        shut_down(self);
    }
}

impl SocketStream for TokioIo<Upgraded> {}

impl SocketStream for tokio::io::DuplexStream {}

#[cfg(test)]
impl SocketStream for tokio::io::Empty {}

#[cfg(feature = "tls")]
impl SocketStream for TlsStream<StallGuard> {
    fn cut(&mut self) {
        // A peer that reads no more would keep the end of TLS, and with it the socket, from ever being written.
        shut_down(self);
        drop(SockRef::from(self.get_ref().get_ref()).shutdown(std::net::Shutdown::Both));
    }
}

/// Ends the writing direction as far as that is possible at once.
fn shut_down<S: AsyncWrite + Unpin + ?Sized>(mut stream: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut stream).poll_shutdown(&mut cx);
}

/// Client socket. All methods take `&self`, because a shard is one thread.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Boxed(Box<RefCell<BoxedSocket>>),
    /// None: its client is away.
    Away,
}

/// Client socket that is not plain TCP.
pub(crate) struct BoxedSocket {
    /// `None` once it was cut.
    stream: Option<Box<dyn SocketStream>>,
    /// Waker of the task that waits for bytes: it has to learn of a cut, which the stream itself would not tell.
    reader: Option<Waker>,
}

impl Socket {
    /// Boxes a stream that is not plain TCP.
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
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(count) if count > 0 && count < buffer.len() => {
                        note_drained(stream);
                        return Poll::Ready(Ok(count));
                    }
                    other => return Poll::Ready(other),
                }
            },
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
            (Socket::Boxed(_), _) => Err(io::ErrorKind::WouldBlock.into()),
            (Socket::Away, _) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Descriptor of a socket that is written to as it is: plain TCP.
    #[must_use]
    pub(crate) fn plain(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Tcp(stream) => Some(stream.as_fd()),
            Socket::Boxed(_) | Socket::Away => None,
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
            Socket::Boxed(boxed) => boxed.borrow_mut().poll_flush(cx),
        }
    }

    /// Shuts both directions down: the reading task sees the end.
    pub(crate) fn cut(&self) {
        match self {
            // It fails only where the peer was faster, and then the reader sees the end too.
            Socket::Tcp(stream) => drop(SockRef::from(stream).shutdown(std::net::Shutdown::Both)),
            Socket::Boxed(boxed) => boxed.borrow_mut().cut(),
            Socket::Away => {}
        }
    }
}

/// Tells the runtime that a read left nothing behind, because less came than there was room for. That spares the read
/// that would find it out, one in two of a client that sends single messages. An end that was seen stays known.
///
/// The runtime of a shard polls for events on the shard's own thread, so none can come between the read and this, and
/// be lost.
fn note_drained(stream: &TcpStream) {
    // It returns the error that it was given.
    drop(stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
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
            stream.cut();
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for BoxedSocket {
    /// Sends the end of TLS, so that the peer knows that nothing was cut off.
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
