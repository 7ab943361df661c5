//! Client sockets, shared by the task that reads and by the deliveries that write.
//!
//! TCP takes the fast path, plain, below TLS and below an answer without an end: it is written to directly, without a
//! task. Everything else (a pipe in memory, a socket of another runtime) is boxed: its writes are queued and flushed by
//! a task.
//!
//! While a socket carries HTTP, a [`StallGuard`] closes it when an answer is not read for too long, and a
//! [`RequestSocket`] tells whether a request has begun.

mod answer_socket;
mod boxed_socket;
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
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

pub(crate) use answer_socket::{AnswerSocket, Translate};
use boxed_socket::BoxedSocket;
pub(crate) use boxed_socket::SocketStream;
use drained::read_now;
pub(crate) use half_close::half_close;
pub(crate) use request_socket::{RequestProgress, RequestSocket, SocketHandover};
pub(crate) use stall_guard::StallGuard;
#[cfg(feature = "tls")]
pub(crate) use tls_socket::TlsSocket;
pub(crate) use write_stall::{CurrentStallLimit, WriteStallLimit};

/// Client socket. All methods take `&self`, because a shard is one thread.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
    Answer(Box<AnswerSocket>),
    Boxed(Box<RefCell<BoxedSocket>>),
    /// None: its client is away.
    Away,
}

impl Socket {
    /// Boxes a stream that is not TCP.
    #[must_use]
    pub(crate) fn boxed(stream: impl SocketStream + 'static) -> Self {
        Socket::Boxed(Box::new(RefCell::new(BoxedSocket::new(stream))))
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
            Socket::Answer(answer) => answer.poll_read(cx, buffer),
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
            (Socket::Answer(answer), slices) => answer.try_write(slices),
            (Socket::Boxed(_), _) => Err(io::ErrorKind::WouldBlock.into()),
            (Socket::Away, _) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether bytes that were taken by [`try_write`](Self::try_write) still wait for the system, encrypted or
    /// translated.
    #[must_use]
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.has_unsent(),
            Socket::Answer(answer) => answer.has_unsent(),
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
            Socket::Answer(answer) => Some(answer.descriptor()),
            Socket::Boxed(_) | Socket::Away => None,
        }
    }

    /// Whether its descriptor takes bytes only as [`seal`](Self::seal) makes them.
    #[must_use]
    pub(crate) fn is_sealed(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(_) => true,
            Socket::Answer(_) => true,
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => false,
        }
    }

    /// Encrypts or translates bytes behind those in `sealed`, for a caller who writes them to the descriptor and leaves
    /// the rest to [`keep_unsent`](Self::keep_unsent). Returns how many were taken.
    ///
    /// # Errors
    /// `WouldBlock` when earlier bytes wait, or bytes leave this socket as they are; else it was cut.
    pub(crate) fn seal(&self, slices: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.seal(slices, sealed),
            Socket::Answer(answer) => answer.seal(slices, sealed),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Keeps sealed bytes that the descriptor did not take.
    pub(crate) fn keep_unsent(&self, sealed: &[u8]) {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.keep_unsent(sealed),
            Socket::Answer(answer) => answer.keep_unsent(sealed),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => {}
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
            Socket::Answer(answer) => answer.poll_write(cx, slices),
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
            Socket::Answer(answer) => answer.poll_flush(cx),
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
            Socket::Answer(answer) => answer.cut(),
            Socket::Boxed(boxed) => boxed.borrow_mut().cut(),
            Socket::Away => {}
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Socket::Tcp(_) => "Socket::Tcp",
            #[cfg(feature = "tls")]
            Socket::Tls(_) => "Socket::Tls",
            Socket::Answer(_) => "Socket::Answer",
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
