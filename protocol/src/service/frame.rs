//! Frames of a link: length-prefixed bodies, independent of WebSocket message boundaries.
//!
//! ```text
//!  WebSocket messages   │ 2 a b 3 c │ d e 1 f │
//!  bodies                   a b  ─────c d e─  f
//!                         a slice     joined    a slice
//! ```

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::LINK_FRAME_MAX_BYTES;

/// Longest prefix: five times seven bits hold a 31-bit length.
const PREFIX_MAX_BYTES: usize = 5;

/// Bytes kept of an oversized frame, enough for its type and target connection.
const HEAD_MAX_BYTES: usize = 1024;

/// Error for invalid bytes or an oversized frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame exceeds the limit and was skipped. The next one can be read.
    #[error(transparent)]
    TooLarge(OversizedFrame),
    /// A length prefix has more than five bytes or exceeds 2 GiB. Reading can't continue.
    #[error("a length prefix is malformed")]
    Prefix,
}

/// Oversized frame (`limits::LINK_FRAME_MAX_BYTES`), with only its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is over the limit of {LINK_FRAME_MAX_BYTES}")]
pub struct OversizedFrame {
    /// Length of its body in bytes.
    pub length: usize,
    /// Beginning of its body, at most 1 KiB.
    pub head: Bytes,
}

/// Assembles frames from WebSocket messages. A message of whole frames is not copied.
///
/// If [`next_body`](Self::next_body) is called after each message until it returns `None`, the buffer holds at most one
/// frame and one WebSocket message.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    /// Beginning of an incomplete frame from messages before `pending`, with its prefix.
    partial: BytesMut,
    /// Rest of the last message.
    pending: Bytes,
    /// Oversized frame that is being skipped.
    skipping: Option<Skipping>,
}

/// Oversized frame that has not fully arrived.
#[derive(Debug)]
struct Skipping {
    length: usize,
    missing: usize,
    head: BytesMut,
}

impl FrameBuffer {
    /// Adds the next WebSocket message.
    pub fn push(&mut self, message: Bytes) {
        // The rest is copied only now, and is empty if the last message held whole frames.
        self.partial.extend_from_slice(&self.pending);
        self.pending = message;
    }

    /// Returns the body of the next complete frame without its length prefix, or `None` if more bytes are needed. Fails
    /// once for each skipped frame over the limit (`limits::LINK_FRAME_MAX_BYTES`). After a malformed prefix, each call
    /// fails.
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.skipping.is_some() {
            return self.skip();
        }
        if self.partial.is_empty() { self.next_slice() } else { self.next_joined() }
    }

    /// Returns a body that lies entirely within the last message.
    fn next_slice(&mut self) -> Result<Option<Bytes>, FrameError> {
        match prefix(&self.pending)? {
            Some(FramePrefix { width, length }) if length > LINK_FRAME_MAX_BYTES => {
                self.pending.advance(width);
                self.begin_skip(length)
            }
            Some(FramePrefix { width, length }) if self.pending.len() >= width + length => {
                self.pending.advance(width);
                Ok(Some(self.pending.split_to(length)))
            }
            _ => Ok(None),
        }
    }

    /// Completes a body from an earlier message, consuming only that frame's bytes of the last message.
    fn next_joined(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let found = prefix(&self.partial)?;
            if let Some(FramePrefix { length, .. }) = found
                && length > LINK_FRAME_MAX_BYTES
            {
                // The buffer holds only the prefix, because a prefix within one message is handled there.
                self.partial = BytesMut::new();
                return self.begin_skip(length);
            }
            // Byte by byte until the length is known, at most five times.
            let needed = found.as_ref().map_or(self.partial.len() + 1, |prefix| prefix.width + prefix.length);
            let missing = needed.saturating_sub(self.partial.len());
            if let (Some(FramePrefix { width, .. }), 0) = (found, missing) {
                return Ok(Some(self.take_joined(width, needed)));
            }
            if self.pending.is_empty() {
                return Ok(None);
            }
            let taken = self.pending.split_to(missing.min(self.pending.len()));
            self.partial.extend_from_slice(&taken);
        }
    }

    fn begin_skip(&mut self, length: usize) -> Result<Option<Bytes>, FrameError> {
        self.skipping = Some(Skipping { length, missing: length, head: BytesMut::new() });
        self.skip()
    }

    /// Drops the received part of an oversized frame, except for its beginning.
    fn skip(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(mut frame) = self.skipping.take() else { return Ok(None) };
        let part = self.pending.split_to(frame.missing.min(self.pending.len()));
        frame.missing -= part.len();
        let room = HEAD_MAX_BYTES - frame.head.len();
        frame.head.extend_from_slice(part.get(..room).unwrap_or(&part));
        if frame.missing > 0 {
            self.skipping = Some(frame);
            return Ok(None);
        }
        Err(FrameError::TooLarge(OversizedFrame { length: frame.length, head: frame.head.freeze() }))
    }

    fn take_joined(&mut self, width: usize, needed: usize) -> Bytes {
        let mut frame = self.partial.split_to(needed);
        if self.partial.is_empty() {
            // Otherwise an idle link would keep the memory of its largest frame.
            self.partial = BytesMut::new();
        }
        frame.advance(width);
        frame.freeze()
    }
}

struct FramePrefix {
    /// Size of the prefix itself.
    width: usize,
    length: usize,
}

/// Reads the prefix at the start of `bytes`. Returns `None` if it is incomplete.
fn prefix(bytes: &[u8]) -> Result<Option<FramePrefix>, FrameError> {
    let mut length: usize = 0;
    for (at, &byte) in bytes.iter().take(PREFIX_MAX_BYTES).enumerate() {
        // The fifth byte holds the last three of 31 bits, and must be the last.
        if at + 1 == PREFIX_MAX_BYTES && byte > 0x07 {
            return Err(FrameError::Prefix);
        }
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(FramePrefix { width: at + 1, length }));
        }
    }
    Ok(None)
}

/// Size of the frame at the start of `bytes`, including its prefix; their full length if the frame is incomplete.
pub(super) fn frame_bytes(bytes: &[u8]) -> usize {
    match prefix(bytes) {
        Ok(Some(FramePrefix { width, length })) => (width + length).min(bytes.len()),
        _ => bytes.len(),
    }
}

/// Wire size of a frame with this body size: the length prefix takes a byte per seven bits.
#[must_use]
pub fn bytes_of_frame(body: usize) -> usize {
    body + (usize::BITS - body.leading_zeros()).div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_prefix_takes_a_byte_for_every_seven_bits() {
        assert_eq!(
            (bytes_of_frame(0), bytes_of_frame(127), bytes_of_frame(128), bytes_of_frame(16_384)),
            (1, 128, 130, 16_387)
        );
    }

    fn bodies(buffer: &mut FrameBuffer) -> Vec<Bytes> {
        std::iter::from_fn(|| buffer.next_body().unwrap()).collect()
    }

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut left = length;
        while left > 0x7f {
            frame.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
            left >>= 7;
        }
        frame.push(u8::try_from(left).unwrap());
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn whole_frames_are_slices_of_their_message() {
        let mut buffer = FrameBuffer::default();
        let message = Bytes::from_static(b"\x02ab\x00\x03cde");
        let inside = message.as_ptr_range();
        buffer.push(message);
        let bodies = bodies(&mut buffer);
        assert_eq!(bodies, ["ab", "", "cde"]);
        assert!(inside.contains(&bodies[0].as_ptr()) && inside.contains(&bodies[2].as_ptr()));
    }

    #[test]
    fn a_frame_in_pieces_is_put_together_and_the_next_one_is_a_slice_again() {
        let mut buffer = FrameBuffer::default();
        buffer.push(Bytes::from_static(b"\x02ab\x03c"));
        assert_eq!(bodies(&mut buffer), ["ab"]);
        buffer.push(Bytes::from_static(b"d"));
        assert!(bodies(&mut buffer).is_empty());
        let message = Bytes::from_static(b"e\x01f");
        let inside = message.as_ptr_range();
        buffer.push(message);
        let bodies = bodies(&mut buffer);
        assert_eq!(bodies, ["cde", "f"]);
        assert!(!inside.contains(&bodies[0].as_ptr()) && inside.contains(&bodies[1].as_ptr()));
    }

    #[test]
    fn a_prefix_may_be_cut_anywhere() {
        let mut buffer = FrameBuffer::default();
        let frame = frame(70_000);
        for piece in [&frame[..1], &frame[1..2], &[], &frame[2..3], &frame[3..10]] {
            buffer.push(Bytes::copy_from_slice(piece));
            assert!(bodies(&mut buffer).is_empty());
        }
        buffer.push(Bytes::copy_from_slice(&frame[10..]));
        assert_eq!(bodies(&mut buffer), [Bytes::from(vec![b'x'; 70_000])]);
    }

    #[test]
    fn messages_added_before_the_last_is_read_keep_their_order() {
        let mut buffer = FrameBuffer::default();
        for message in [&b"\x01a\x02"[..], b"bc\x01", b"d\x01e"] {
            buffer.push(Bytes::copy_from_slice(message));
        }
        assert_eq!(bodies(&mut buffer), ["a", "bc", "d", "e"]);
    }

    #[test]
    fn a_frame_at_the_limit_passes_and_one_over_it_is_skipped_without_being_kept() {
        let mut buffer = FrameBuffer::default();
        buffer.push(Bytes::from(frame(LINK_FRAME_MAX_BYTES)));
        assert_eq!(bodies(&mut buffer).len(), 1);
        let length = LINK_FRAME_MAX_BYTES + 1;
        let mut message = frame(length);
        message.extend(b"\x01a");
        // The prefix in one piece, and split.
        for cuts in [&[5_000, length / 2][..], &[2, 3, 4, 5, length], &[0]] {
            let (mut rest, mut last) = (&message[..], 0);
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut - last);
                (rest, last) = (behind, *cut);
                buffer.push(Bytes::copy_from_slice(piece));
                assert_eq!(buffer.next_body(), Ok(None));
                assert!(buffer.pending.len() + buffer.partial.len() <= PREFIX_MAX_BYTES);
            }
            buffer.push(Bytes::copy_from_slice(rest));
            let head = Bytes::from(vec![b'x'; HEAD_MAX_BYTES]);
            assert_eq!(buffer.next_body(), Err(FrameError::TooLarge(OversizedFrame { length, head })));
            assert_eq!(bodies(&mut buffer), ["a"]);
        }
    }

    #[test]
    fn a_prefix_over_31_bits_is_malformed() {
        for bytes in [&b"\xff\xff\xff\xff\x08"[..], b"\x80\x80\x80\x80\x80", b"\xff\xff\xff\xff\xff\x00"] {
            let mut buffer = FrameBuffer::default();
            buffer.push(Bytes::copy_from_slice(bytes));
            assert_eq!(buffer.next_body(), Err(FrameError::Prefix));
        }
        let mut buffer = FrameBuffer::default();
        buffer.push(Bytes::from_static(b"\xff\xff\xff\xff\x07"));
        assert_eq!(buffer.next_body(), Ok(None));
    }

    #[test]
    fn a_prefix_longer_than_needed_is_read_as_azures_sdk_does() {
        let mut buffer = FrameBuffer::default();
        buffer.push(Bytes::from_static(b"\x81\x80\x00a"));
        assert_eq!(bodies(&mut buffer), ["a"]);
    }

    #[test]
    fn nothing_is_kept_of_frames_that_were_handed_out() {
        let mut buffer = FrameBuffer::default();
        let frame = frame(100_000);
        buffer.push(Bytes::copy_from_slice(&frame[..50_000]));
        assert!(bodies(&mut buffer).is_empty());
        buffer.push(Bytes::copy_from_slice(&frame[50_000..]));
        assert_eq!(bodies(&mut buffer).len(), 1);
        assert_eq!(buffer.partial.capacity(), 0);
        assert!(buffer.pending.is_empty());
    }
}
