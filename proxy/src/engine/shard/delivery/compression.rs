//! Compression of frames for the clients of one shard that negotiated it.
//!
//! ```text
//!  plain frame ─┬──────────────► clients without compression; replay buffers, taps, counters of messages
//!               └─ Deflater ─► twin ─► all clients with compression
//! ```
//!
//! A shard compresses no large message: that is done in pieces, by the task that reads the message from a link.
//!
//! A client has no compressor: its messages are compressed each by itself, so a twin is as good for one client as for
//! the next. A message is sent plain if compression does not make it smaller.

use bytes::Bytes;

use super::framed::LARGE_BYTES;
use crate::engine::transport::websocket::{Deflater, payload_bytes};
use crate::ground::config::OutboxLimits;

/// Frame for a client, plain and as it is written. Both are the same without compression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WireFrame<'a> {
    pub plain: &'a Bytes,
    pub wire: &'a Bytes,
}

impl WireFrame<'_> {
    /// Bytes for this number of clients: plain, and as written.
    pub(super) fn bytes(&self, count: u64) -> [u64; 2] {
        [self.plain, self.wire].map(|frame| frame.len() as u64 * count)
    }
}

impl<'a> From<&'a Bytes> for WireFrame<'a> {
    #[inline]
    fn from(frame: &'a Bytes) -> Self {
        Self { plain: frame, wire: frame }
    }
}

/// Compressor of a shard, created for the first message that needs it.
#[derive(Debug)]
pub(crate) struct Compression {
    min_bytes: usize,
    deflater: Option<Box<Deflater>>,
}

impl Compression {
    pub(crate) fn new(limits: &OutboxLimits) -> Self {
        Self { min_bytes: limits.compress_min_bytes, deflater: None }
    }

    /// Twin of a frame; `None` if the message is short or large, or gets no smaller.
    pub(crate) fn deflate(&mut self, frame: &Bytes) -> Option<Bytes> {
        if !(self.min_bytes..=LARGE_BYTES).contains(&payload_bytes(frame)) {
            return None;
        }
        self.deflater.get_or_insert_default().deflate_frame(frame)
    }

    /// Whether a message was compressed.
    #[cfg(test)]
    pub(super) fn has_begun(&self) -> bool {
        self.deflater.is_some()
    }
}
