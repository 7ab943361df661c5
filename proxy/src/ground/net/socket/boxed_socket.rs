//! Client socket other than TCP, read and written by tasks. Also the read of a TCP socket that marks it as drained.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Byte stream that can be boxed as a client socket.
pub(crate) trait SocketStream: AsyncRead + AsyncWrite + Unpin {}

impl SocketStream for TokioIo<Upgraded> {}

impl SocketStream for tokio::io::DuplexStream {}

#[cfg(test)]
impl SocketStream for tokio::io::Empty {}

/// Closes the write direction as far as possible without blocking.
fn shut_down<S: AsyncWrite + Unpin + ?Sized>(mut stream: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut stream).poll_shutdown(&mut cx);
}

pub(crate) struct BoxedSocket {
    /// `None` after a cut.
    stream: Option<Box<dyn SocketStream>>,
    /// Waker of the reading task. The stream itself does not report a cut.
    reader: Option<Waker>,
}

impl BoxedSocket {
    pub(super) fn new(stream: impl SocketStream + 'static) -> Self {
        Self { stream: Some(Box::new(stream)), reader: None }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        let mut buffer = ReadBuf::new(buffer);
        if Pin::new(stream).poll_read(cx, &mut buffer)?.is_pending() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        Pin::new(stream).poll_write_vectored(cx, slices)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_flush(cx))
    }

    pub(super) fn cut(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            shut_down(&mut stream);
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for BoxedSocket {
    /// Closes cleanly, so that the peer can rule out truncation.
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

/// Reads available data. A short read marks the socket as drained in the runtime.
pub(super) fn read_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let count = stream.try_read(buffer)?;
    if count > 0 && count < buffer.len() {
        note_drained(stream);
    }
    Ok(count)
}

/// Marks the socket as drained after a short read. This saves the read that would return nothing: half of all reads if
/// clients send single messages. A detected end of stream is kept.
///
/// The runtime polls for events on the shard's own thread, so no event between the read and this call is lost.
fn note_drained(stream: &TcpStream) {
    // Always returns the given error.
    drop(stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
}
