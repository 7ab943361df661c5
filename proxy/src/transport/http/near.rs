//! The client room's end of a pipe. With it the connection is over, and whoever serves its requests learns that at once:
//! they may be far from reading the end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline_protocol::cause::Cause;

use crate::net::socket::Stream;

/// The client room's end of a pipe.
#[derive(Debug)]
pub(crate) struct Near {
    pipe: DuplexStream,
    cause: Arc<OnceLock<Cause>>,
    _over: DropGuard,
}

impl Near {
    /// An end of this pipe, whose own end is told by `over`. Why the far end was closed stands in `cause`.
    pub(super) fn new(pipe: DuplexStream, over: CancellationToken, cause: Arc<OnceLock<Cause>>) -> Self {
        Self { pipe, cause, _over: over.drop_guard() }
    }
}

impl Stream for Near {}

impl AsyncRead for Near {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buffer))?;
        match self.cause.get() {
            Some(cause) if buffer.filled().len() == before => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, *cause)))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Near {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.pipe.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
