//! A client's socket, shared by the task that reads it and by whoever delivers to it.
//!
//! Only TCP takes the fast path: it is written to directly, without a task of its own. Everything else (TLS, an
//! in-memory pipe, a stranger's runtime) is boxed: its writes are queued and flushed by a task.
//!
//! While HTTP is spoken on it, the socket is a [`Patient`] one: it goes when an answer is not read for too long.

mod patience;
mod patient;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

pub(crate) use patience::{CurrentPatience, Patience};
pub(crate) use patient::Patient;

/// Anything that reads and writes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Cuts it in both directions, with a last word if there is room for one.
    fn cut(&mut self) {
        shut_down(self);
    }
}

impl Stream for TokioIo<Upgraded> {}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}

#[cfg(test)]
impl Stream for tokio::io::Empty {}

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::server::TlsStream<Patient> {
    fn cut(&mut self) {
        // The peer may read no more: then its TLS never gets to the end.
        shut_down(self);
        drop(SockRef::from(self.get_ref().0.get_ref()).shutdown(std::net::Shutdown::Both));
    }
}

/// Ends the writing direction as far as that can be done at once.
fn shut_down<S: AsyncWrite + Unpin + ?Sized>(mut stream: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut stream).poll_shutdown(&mut cx);
}

/// A client's socket. All methods take `&self`: a shard is one thread.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Boxed(Box<RefCell<Boxed>>),
}

/// A socket that is not TCP.
pub(crate) struct Boxed {
    /// `None` once it was cut.
    stream: Option<Box<dyn Stream>>,
    /// Who waits for bytes, and has to learn of a cut: the stream itself would not tell.
    reader: Option<Waker>,
}

impl Socket {
    /// Anything but plain TCP.
    #[must_use]
    pub(crate) fn boxed(stream: impl Stream + 'static) -> Self {
        Socket::Boxed(Box::new(RefCell::new(Boxed { stream: Some(Box::new(stream)), reader: None })))
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
        }
    }

    /// Writes what the socket takes right now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing, or has no fast path; else the socket failed.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
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
        }
    }

    /// Sees off what was written: a TLS stream may keep bytes that the socket below did not take.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(_) => Poll::Ready(Ok(())),
            Socket::Boxed(boxed) => boxed.borrow_mut().poll_flush(cx),
        }
    }

    /// Cuts the socket in both directions: whoever reads it sees the end.
    pub(crate) fn cut(&self) {
        match self {
            // It fails only where the peer was faster, and then the reader sees the end too.
            Socket::Tcp(stream) => drop(SockRef::from(stream).shutdown(std::net::Shutdown::Both)),
            Socket::Boxed(boxed) => boxed.borrow_mut().cut(),
        }
    }
}

/// Less came than there was room for: nothing is left, and what comes next is a new event. Told so, the runtime spares us
/// the read that would find it out, one in two of a client that sends single messages. An end that was seen stays noted.
///
/// A shard's runtime looks for events on the shard's own thread: none can be noted between the read and this, and be lost.
fn note_drained(stream: &TcpStream) {
    // What it returns is what it was told.
    drop(stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
}

impl Boxed {
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

impl Drop for Boxed {
    /// The end of TLS is said, not guessed: so a peer knows that nothing was cut off.
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            shut_down(stream);
        }
    }
}

impl std::fmt::Debug for Boxed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Boxed").field("is_cut", &self.stream.is_none()).finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_comes_after_a_short_read_is_read_and_so_is_the_end_that_came_with_the_bytes() {
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
    async fn who_reads_a_boxed_socket_sees_that_it_was_cut_and_so_does_the_far_end() {
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
