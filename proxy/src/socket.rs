//! A client's socket, shared by the task that reads it and by whoever delivers to it.
//!
//! Only TCP takes the fast path: it is written to directly, without a task of its own. Everything else (TLS, an
//! in-memory pipe, a stranger's runtime) is boxed: its writes are queued and flushed by a task.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Anything that reads and writes.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Cuts it in both directions, with a last word if there is room for one.
    fn cut(&mut self) {
        shut_down(self);
    }
}

impl Stream for TokioIo<Upgraded> {}

#[cfg(test)]
impl Stream for tokio::io::Empty {}

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn cut(&mut self) {
        // The peer may read no more: then its TLS never gets to the end.
        shut_down(self);
        drop(SockRef::from(self.get_ref().0).shutdown(std::net::Shutdown::Both));
    }
}

/// Ends the writing direction as far as that can be done at once.
fn shut_down<S: AsyncWrite + Unpin + ?Sized>(mut stream: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut stream).poll_shutdown(&mut cx);
}

/// A client's socket. All methods take `&self`: a shard is one thread.
pub enum Socket {
    /// Plain TCP.
    Tcp(TcpStream),
    /// Anything else.
    Boxed(RefCell<Box<dyn Stream>>),
}

impl Socket {
    /// Reads into `buffer` when there is something to read; 0 is the end. Cancel-safe.
    ///
    /// The buffer is borrowed only while bytes are there, so that a thousand waiting sockets share one.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other),
                }
            },
            Socket::Boxed(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    /// Writes what the socket takes right now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing, or has no fast path; else the socket failed.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // Past the runtime's own notes on the socket, which lie elsewhere in memory: the system knows best.
            // Whoever then waits for room asks the runtime, which finds out by itself.
            (Socket::Tcp(stream), [only]) => SockRef::from(stream).send(only),
            (Socket::Tcp(stream), several) => stream.try_write_vectored(several),
            (Socket::Boxed(_), _) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes when the socket takes something.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => loop {
                ready!(stream.poll_write_ready(cx))?;
                match stream.try_write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other),
                }
            },
            Socket::Boxed(stream) => {
                let mut stream = stream.borrow_mut();
                Pin::new(&mut *stream).poll_write_vectored(cx, slices)
            }
        }
    }

    /// Sees off what was written: a TLS stream may keep bytes that the socket below did not take.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(_) => Poll::Ready(Ok(())),
            Socket::Boxed(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
        }
    }

    /// Cuts the socket in both directions: whoever reads it sees the end.
    pub fn cut(&self) {
        match self {
            // It fails only where the peer was faster, and then the reader sees the end too.
            Socket::Tcp(stream) => drop(SockRef::from(stream).shutdown(std::net::Shutdown::Both)),
            Socket::Boxed(stream) => stream.borrow_mut().cut(),
        }
    }
}

impl Drop for Socket {
    /// The end of TLS is said, not guessed: so a peer knows that nothing was cut off.
    fn drop(&mut self) {
        if let Socket::Boxed(stream) = self {
            shut_down(stream.get_mut());
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Socket::Tcp(_) => "Socket::Tcp",
            Socket::Boxed(_) => "Socket::Boxed",
        })
    }
}
