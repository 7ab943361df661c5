//! Compressed messages of one client: stored until they are whole, then read piece by piece.
//!
//! ```text
//!  frames ──► DeflatedMessage ─ whole ─► Inflater ──► pieces, at most 64 KiB in one step of the shard
//!                                                       └─ more: the rest of the read waits for the next step
//! ```
//!
//! An idle client has none. The inflater belongs to the shard; a client keeps it only between two steps of a message.

use super::inbound_error::InboundError;
use crate::transport::websocket::{DeflatedMessage, Inflater};

/// Maximum decompressed bytes per step of the shard.
const STEP_BYTES: usize = 64 * 1024;

/// Maximum size of a compressed message in sizes of a hub message. Clients join queued messages into one.
const HUB_MESSAGES_MAX: usize = 16;

/// Decompressed bytes per compressed byte that are accepted for longer messages, too. Text reaches about 20.
const RATIO_MAX: usize = 64;

/// Overhead of incompressible data.
const OVERHEAD_BYTES: usize = 1024;

/// Compressed message being received or read, and data behind it.
#[derive(Debug, Default)]
pub(super) struct DeflatedInput {
    pub(super) message: DeflatedMessage,
    /// Undecoded data that was read behind the message.
    pub(super) rest: Vec<u8>,
    /// Decompressor in the middle of the message.
    pub(super) inflater: Option<Box<Inflater>>,
}

impl DeflatedInput {
    /// Appends received bytes. Fails before more memory than the limit is used.
    pub(super) fn push(&mut self, bytes: &[u8], limit_bytes: usize) -> Result<(), InboundError> {
        let limit_bytes = limit_bytes.saturating_mul(HUB_MESSAGES_MAX);
        if self.message.length() + bytes.len() > limit_bytes.saturating_add(OVERHEAD_BYTES) {
            return Err(InboundError::InflatedTooLarge(limit_bytes));
        }
        self.message.push(bytes);
        Ok(())
    }

    /// Whether a message or other data is to be read in the next step.
    pub(super) fn is_behind(&self) -> bool {
        self.message.is_whole() || !self.rest.is_empty()
    }

    /// Memory and number of bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.message.capacity() + self.rest.capacity(), self.message.length() + self.rest.len())
    }
}

/// Reading of compressed messages in one step, with the inflater of the shard.
#[derive(Debug)]
pub(super) struct InflateStep {
    inflater: Box<Inflater>,
    pub(super) limit_bytes: usize,
    left: usize,
    /// Decompressed bytes of the step.
    pub(super) inflated: usize,
}

impl InflateStep {
    /// Step for a client with this limit of hub messages. The client's own inflater is within a message.
    pub(super) fn new(
        shared: &mut Option<Box<Inflater>>,
        input: Option<&mut Box<DeflatedInput>>,
        limit_bytes: usize,
    ) -> Self {
        let own = input.and_then(|input| input.inflater.take());
        let inflater = own.or_else(|| shared.take()).unwrap_or_default();
        Self { inflater, limit_bytes, left: STEP_BYTES, inflated: 0 }
    }

    /// Whether the shard has to serve others first.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Decompresses the next piece; 0 at the end of the message.
    pub(super) fn next(&mut self, input: &mut DeflatedInput) -> Result<usize, InboundError> {
        let length = self.inflater.inflate(&mut input.message)?;
        let limit_bytes = self.limit_bytes.saturating_mul(HUB_MESSAGES_MAX);
        if input.message.inflated() > limit_bytes.max(input.message.length().saturating_mul(RATIO_MAX)) {
            return Err(InboundError::InflatedTooLarge(limit_bytes));
        }
        self.left = self.left.saturating_sub(length);
        self.inflated += length;
        Ok(length)
    }

    /// The piece decompressed last, of this length.
    pub(super) fn piece(&self, length: usize) -> &[u8] {
        self.inflater.piece(length)
    }

    /// Ends the step. The inflater stays with a message that is not read to its end.
    pub(super) fn end(self, shared: &mut Option<Box<Inflater>>, input: Option<&mut Box<DeflatedInput>>) {
        match input.filter(|input| input.message.is_whole()) {
            Some(input) => input.inflater = Some(self.inflater),
            None => *shared = Some(self.inflater),
        }
    }
}
