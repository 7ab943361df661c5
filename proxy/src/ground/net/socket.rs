//! Client sockets, shared by the reading task and by deliveries that write.
//!
//! Writes to TCP, whether plain, below TLS or below an endless response, are direct. Other sockets (in-memory pipes,
//! sockets of another runtime) are boxed; a task writes and flushes their queue.
//!
//! During HTTP, a [`StallGuard`] closes the socket if a response is not read for too long, and a [`RequestSocket`]
//! tracks whether a request has begun.

mod answer_socket;
mod boxed_socket;
mod half_close;
mod request_socket;
mod stall_guard;
#[cfg(feature = "tls")]
mod tls_socket;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

pub(crate) use answer_socket::{AnswerSocket, Translate};
pub(crate) use boxed_socket::SocketStream;
use boxed_socket::{BoxedSocket, read_now};
pub(crate) use half_close::half_close;
pub(crate) use request_socket::{RequestProgress, RequestSocket, SocketHandover};
pub(crate) use stall_guard::{CurrentStallLimit, StallGuard, WriteStallLimit};
#[cfg(feature = "tls")]
pub(crate) use tls_socket::TlsSocket;

/// Client socket. All methods take `&self`, because a shard is one thread.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
    Answer(Box<AnswerSocket>),
    Boxed(Box<RefCell<BoxedSocket>>),
    /// No socket: the client is disconnected.
    Away,
}

impl Socket {
    pub(crate) fn boxed(stream: impl SocketStream + 'static) -> Self {
        Socket::Boxed(Box::new(RefCell::new(BoxedSocket::new(stream))))
    }

    /// Reads available data into `buffer`; 0 is the end. Cancel-safe.
    ///
    /// The buffer is borrowed only while data is available, so any number of waiting sockets share one.
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

    /// Writes without blocking.
    ///
    /// # Errors
    /// `WouldBlock` if it accepts nothing or has no fast path; otherwise the socket failed.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // Bypasses the runtime's cached readiness, which is elsewhere in memory. A task that later waits for room
            // updates it.
            (Socket::Tcp(stream), [only]) => SockRef::from(stream).send(only),
            (Socket::Tcp(stream), several) => stream.try_write_vectored(several),
            #[cfg(feature = "tls")]
            (Socket::Tls(tls), slices) => tls.try_write(slices),
            (Socket::Answer(answer), slices) => answer.try_write(slices),
            (Socket::Boxed(_), _) => Err(io::ErrorKind::WouldBlock.into()),
            (Socket::Away, _) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether bytes accepted by [`try_write`](Self::try_write), encrypted or translated, are still pending.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.has_unsent(),
            Socket::Answer(answer) => answer.has_unsent(),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => false,
        }
    }

    /// Descriptor of a socket with direct writes.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Tcp(stream) => Some(stream.as_fd()),
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => Some(tls.descriptor()),
            Socket::Answer(answer) => Some(answer.descriptor()),
            Socket::Boxed(_) | Socket::Away => None,
        }
    }

    /// Whether the descriptor accepts only output of [`seal`](Self::seal).
    pub(crate) fn is_sealed(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(_) => true,
            Socket::Answer(_) => true,
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => false,
        }
    }

    /// Appends encrypted or translated bytes to `sealed`, for the caller to write to the descriptor; returns the number
    /// of bytes taken. The caller passes the rest to [`keep_unsent`](Self::keep_unsent).
    ///
    /// # Errors
    /// `WouldBlock` while earlier output is pending or if this socket needs no sealing; otherwise it was cut.
    pub(crate) fn seal(&self, slices: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.seal(slices, sealed),
            Socket::Answer(answer) => answer.seal(slices, sealed),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Keeps sealed bytes that the descriptor did not accept.
    pub(crate) fn keep_unsent(&self, sealed: &[u8]) {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.keep_unsent(sealed),
            Socket::Answer(answer) => answer.keep_unsent(sealed),
            Socket::Tcp(_) | Socket::Boxed(_) | Socket::Away => {}
        }
    }

    /// Writes once the socket accepts data.
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

    /// Flushes earlier writes; a TLS stream may hold bytes that the socket below did not accept.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(_) | Socket::Away => Poll::Ready(Ok(())),
            #[cfg(feature = "tls")]
            Socket::Tls(tls) => tls.poll_flush(cx),
            Socket::Answer(answer) => answer.poll_flush(cx),
            Socket::Boxed(boxed) => boxed.borrow_mut().poll_flush(cx),
        }
    }

    /// Shuts down both directions; the reading task sees the end.
    pub(crate) fn cut(&self) {
        match self {
            // Fails only if the peer has already closed; the reader sees that, too.
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
