//! What a client shall get, on its way from the pipe into the answer to a GET: frames in, whole hub messages out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{DuplexStream, ReadHalf};
use tokio_util::io::poll_read_buf;

use crate::transport::websocket::{Peeled, peel};

/// An answer holds little more than this: what is beyond it waits in the pipe, and so does who writes it.
const BATCH_BYTES: usize = 64 * 1024;

/// The reading half of the far end, and what was read of it.
#[derive(Debug)]
pub(super) struct Downward {
    pipe: ReadHalf<DuplexStream>,
    /// The beginning of a frame whose rest has not come.
    partial: BytesMut,
    /// Whole messages that no answer has taken.
    ready: BytesMut,
    is_over: bool,
}

impl Downward {
    pub(super) fn new(pipe: ReadHalf<DuplexStream>) -> Self {
        Self { pipe, partial: BytesMut::new(), ready: BytesMut::new(), is_over: false }
    }

    /// Whether nothing follows what is ready.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads until something is ready or all is over, and then as much more as is there.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_over && self.ready.len() < BATCH_BYTES {
            match poll_read_buf(Pin::new(&mut self.pipe), cx, &mut self.partial) {
                Poll::Ready(Ok(1..)) => self.peel(),
                Poll::Ready(_) => self.is_over = true,
                Poll::Pending if self.ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    /// What is ready; `None` if nothing is.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        (!self.ready.is_empty()).then(|| std::mem::take(&mut self.ready).freeze())
    }

    fn peel(&mut self) {
        while let Some(frame) = peel(&mut self.partial) {
            match frame {
                Peeled::Payload(payload) => self.ready.extend_from_slice(&payload),
                Peeled::Close => self.is_over = true,
                Peeled::Other => {}
            }
        }
        if self.partial.is_empty() {
            // The memory goes too: an idle connection holds no buffer.
            self.partial = BytesMut::new();
        }
    }
}
