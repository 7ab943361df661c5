//! Inner half of an HTTP transport: the socket used by the client module.
//!
//! Dropping it closes the connection and notifies the tasks serving its requests, which may not be reading.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline_protocol::cause::Cause;

use crate::ground::limits::ClientPermit;
use crate::ground::net::socket::SocketStream;

#[derive(Debug)]
pub(crate) struct InnerHalf {
    pipe: DuplexStream,
    cause: Arc<OnceLock<Cause>>,
    _closed: DropGuard,
    _permit: Option<Box<ClientPermit>>,
    kept: Option<Box<dyn Any + Send>>,
}

impl InnerHalf {
    /// Wraps one end of a pipe. Dropping it cancels `closed` and returns the connection's permit; `cause` is the reason
    /// if the outer half was closed.
    pub(super) fn new(
        pipe: DuplexStream,
        closed: CancellationToken,
        cause: Arc<OnceLock<Cause>>,
        permit: Option<Box<ClientPermit>>,
    ) -> Self {
        Self { pipe, cause, _closed: closed.drop_guard(), _permit: permit, kept: None }
    }

    /// Keeps a guard for the lifetime of the connection.
    pub(crate) fn keep(&mut self, guard: impl Any + Send) {
        self.kept = Some(Box::new(guard));
    }
}

impl SocketStream for InnerHalf {}

impl AsyncRead for InnerHalf {
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

impl AsyncWrite for InnerHalf {
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
