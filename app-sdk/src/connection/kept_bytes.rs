//! Bytes that are kept for long: copied, so that they don't keep the link's whole message with them.

use bytes::Bytes;

/// Bytes from this length on stay slices: a copy would cost more, and what they pin is in proportion to them.
pub(crate) const SLICE_MIN_BYTES: usize = 4 * 1024;

/// Copies short bytes out of the buffer that they share.
pub(crate) fn detached(bytes: Bytes) -> Bytes {
    if bytes.len() < SLICE_MIN_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes }
}
