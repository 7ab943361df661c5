//! Reads messages for a client: frames from the pipe in, complete hub messages for GET responses out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{DuplexStream, ReadHalf};
use tokio_util::io::poll_read_buf;

use crate::engine::transport::websocket::{Unframed, unframe};

/// Approximate maximum of message bytes per response. The rest waits in the pipe and blocks its writer.
const BATCH_BYTES: usize = 64 * 1024;

/// Reading half of the pipe's outer end, and data read from it.
#[derive(Debug)]
pub(super) struct MessageReader {
    pipe: ReadHalf<DuplexStream>,
    /// Beginning of an incomplete frame.
    partial: BytesMut,
    /// Complete messages not yet taken.
    ready: BytesMut,
    is_closed: bool,
}

impl MessageReader {
    pub(super) fn new(pipe: ReadHalf<DuplexStream>) -> Self {
        Self { pipe, partial: BytesMut::new(), ready: BytesMut::new(), is_closed: false }
    }

    /// Whether no messages follow the ready ones.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Waits for a message or the end of the pipe, then reads all available data.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_closed && self.ready.len() < BATCH_BYTES {
            match poll_read_buf(Pin::new(&mut self.pipe), cx, &mut self.partial) {
                Poll::Ready(Ok(1..)) => self.unframe(),
                Poll::Ready(_) => self.is_closed = true,
                Poll::Pending if self.ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        (!self.ready.is_empty()).then(|| std::mem::take(&mut self.ready).freeze())
    }

    fn unframe(&mut self) {
        while let Some(frame) = unframe(&mut self.partial) {
            match frame {
                Unframed::Payload(payload) => self.ready.extend_from_slice(&payload),
                Unframed::Close => self.is_closed = true,
                Unframed::Other => {}
            }
        }
        if self.partial.is_empty() {
            // Frees the memory, so that an idle connection has no buffer.
            self.partial = BytesMut::new();
        }
    }
}
