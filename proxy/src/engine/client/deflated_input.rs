//! Compressed messages of one client: stored until they are whole, then read piece by piece.
//!
//! ```text
//!  frames ──► DeflatedInput ─ whole ─► Inflater ──► pieces, at most 64 KiB in one step of the shard
//!                                                     └─ more: the rest of the read waits for the next step
//! ```
//!
//! An idle client has none. The inflater belongs to the shard; a client keeps it only between two steps of a message.

use std::mem;

use super::inbound_error::InboundError;
use crate::engine::transport::websocket::Inflater;

/// Maximum decompressed bytes per step of the shard.
pub(super) const STEP_BYTES: usize = 64 * 1024;

/// Maximum pieces per step. Each takes some compressed bytes.
const STEP_PIECES: usize = 256;

/// Maximum size of a compressed message in sizes of a hub message. Clients join queued messages into one.
const HUB_MESSAGES_MAX: usize = 16;

/// Decompressed bytes per compressed byte that are accepted for longer messages, too. Text reaches about 20.
const RATIO_MAX: usize = 64;

/// Overhead of incompressible data.
const OVERHEAD_BYTES: usize = 1024;

/// Compressed message being received or read, and data behind it.
#[derive(Debug, Default)]
pub(super) struct DeflatedInput {
    /// Beginning of a message.
    bytes: Vec<u8>,
    /// Decompressor with a whole message that is being read.
    inflater: Option<Box<Inflater>>,
    /// Undecoded data that was read behind the whole message.
    pub(super) rest: Vec<u8>,
}

impl DeflatedInput {
    /// Drops the message, but not the data behind it.
    pub(super) fn drop_message(&mut self) {
        *self = Self { rest: mem::take(&mut self.rest), ..Self::default() };
    }

    /// Whether a message is to be read.
    pub(super) fn is_whole(&self) -> bool {
        self.inflater.is_some()
    }

    /// Whether a message or other data is to be read in the next step.
    pub(super) fn is_behind(&self) -> bool {
        self.is_whole() || !self.rest.is_empty()
    }

    /// The piece decompressed last, of this length.
    pub(super) fn piece(&self, length: usize) -> &[u8] {
        self.inflater.as_ref().map(|inflater| inflater.piece(length)).unwrap_or_default()
    }

    /// Memory and number of bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let of_message = self.inflater.as_ref().map_or((0, 0), |inflater| (inflater.memory(), inflater.lengths().0));
        let bytes = self.bytes.capacity() + self.rest.capacity() + of_message.0;
        (bytes, self.bytes.len() + self.rest.len() + of_message.1)
    }
}

/// Reading of compressed messages in one step, with the inflater of the shard.
#[derive(Debug)]
pub(super) struct InflateStep<'a> {
    shared: &'a mut Option<Box<Inflater>>,
    /// Maximum compressed, and usual maximum decompressed bytes of a message.
    limit_bytes: usize,
    /// Number of decompressed bytes.
    pub(super) inflated: usize,
    /// Received bytes of the messages read to their end, which count decompressed.
    pub(super) credit: usize,
    /// Number of pieces, most of them empty if a client wastes time.
    pieces: usize,
    /// Number of messages read to their end.
    pub(super) completed: usize,
}

impl<'a> InflateStep<'a> {
    /// Step for a client with this limit of hub messages.
    pub(super) fn new(shared: &'a mut Option<Box<Inflater>>, limit_bytes: usize) -> Self {
        let limit_bytes = limit_bytes.saturating_mul(HUB_MESSAGES_MAX);
        Self { shared, limit_bytes, inflated: 0, credit: 0, pieces: 0, completed: 0 }
    }

    /// Whether the shard has to serve others first.
    pub(super) fn is_over(&self) -> bool {
        self.inflated >= STEP_BYTES || self.pieces >= STEP_PIECES
    }

    /// Stores a part of a message. Fails before more memory than the limit is used.
    pub(super) fn store(&mut self, input: &mut DeflatedInput, part: &[u8], is_last: bool) -> Result<(), InboundError> {
        if input.bytes.len() + part.len() > self.limit_bytes.saturating_add(OVERHEAD_BYTES) {
            return Err(InboundError::InflatedTooLarge(self.limit_bytes));
        }
        input.bytes.extend_from_slice(part);
        if is_last {
            let inflater = input.inflater.insert(self.shared.take().unwrap_or_default());
            inflater.begin_message(mem::take(&mut input.bytes));
        }
        Ok(())
    }

    /// Decompresses the next piece; `None` at the end of the message.
    pub(super) fn next(&mut self, input: &mut DeflatedInput) -> Result<Option<usize>, InboundError> {
        let Some(inflater) = &mut input.inflater else { return Ok(None) };
        let length = inflater.inflate()?;
        let (compressed, inflated) = inflater.lengths();
        if inflated > self.limit_bytes.max(compressed.saturating_mul(RATIO_MAX)) {
            return Err(InboundError::InflatedTooLarge(self.limit_bytes));
        }
        self.pieces += 1;
        self.inflated += length.unwrap_or_default();
        if length.is_none() {
            self.completed += 1;
            self.credit += compressed.min(inflated);
            *self.shared = input.inflater.take();
        }
        Ok(length)
    }
}
