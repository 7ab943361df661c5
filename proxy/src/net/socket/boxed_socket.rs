//! Client socket that is not TCP: it is read and written by tasks alone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

/// Client socket that is not TCP.
pub(crate) struct BoxedSocket {
    /// `None` once it was cut.
    stream: Option<Box<dyn SocketStream>>,
    /// Waker of the task that waits for bytes: it has to learn of a cut, which the stream itself would not tell.
    reader: Option<Waker>,
}

impl BoxedSocket {
    #[must_use]
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
