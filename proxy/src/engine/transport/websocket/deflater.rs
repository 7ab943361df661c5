//! Compression of messages for clients (permessage-deflate, RFC 7692), without a context: each message is compressed
//! by itself, so that all clients share one frame and none has a compressor.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use tokio::task::yield_now;

use super::frame_encoder::{COMPRESSED, frame_from};
use super::unframe::{FrameContent, FrameHead};

/// Level of compression: 6 is the default of zlib, and of most servers.
const LEVEL: u32 = 6;

/// Bytes of the empty block that ends each flush. Messages are sent without it (RFC 7692, 7.2.1).
const FLUSH_END: [u8; 4] = [0, 0, 0xff, 0xff];

/// Bytes of a long message that are compressed at a time: about a millisecond.
const PIECE_BYTES: usize = 32 * 1024;

/// Capacity above which the buffer for compressed bytes is not kept.
const BUFFER_KEPT_MAX: usize = 64 * 1024;

/// Compressor for messages, one after the other; about 300 KiB.
#[derive(Debug)]
pub struct Deflater {
    state: Compress,
    out: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self { state: Compress::new(Compression::new(LEVEL), false), out: Vec::new() }
    }
}

impl Deflater {
    /// Compresses the message in one of our frames; `None` if this makes it no smaller, and for other frames.
    pub fn deflate_frame(&mut self, frame: &Bytes) -> Option<Bytes> {
        let FrameHead { content, bytes, .. } = FrameHead::parse(frame)?;
        let (_, payload) = frame.split_at_checked(bytes).filter(|_| content == FrameContent::Message)?;
        self.begin_message(payload.len());
        self.add_piece(payload, true);
        let twin = self.packed(payload.len()).and_then(|packed| deflated_frame(frame, packed));
        if self.out.capacity() > BUFFER_KEPT_MAX {
            self.out = Vec::new();
        }
        twin
    }

    /// Compresses a payload in pieces, between which other tasks run; `None` if this makes it no smaller.
    pub async fn deflate_in_pieces(mut self, payload: &[u8]) -> Option<Bytes> {
        self.begin_message(payload.len());
        let mut pieces = payload.chunks(PIECE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            self.add_piece(piece, pieces.peek().is_none());
            yield_now().await;
        }
        self.packed(payload.len()).map(Bytes::copy_from_slice)
    }

    fn begin_message(&mut self, length: usize) {
        self.state.reset();
        self.out.clear();
        self.out.reserve(length + FLUSH_END.len());
    }

    fn add_piece(&mut self, piece: &[u8], is_last: bool) {
        let flush = if is_last { FlushCompress::Sync } else { FlushCompress::None };
        // If there is no room, the message gets no smaller.
        let _ = self.state.compress_vec(piece, &mut self.out, flush);
    }

    /// Compressed payload of this length, if it is smaller.
    fn packed(&self, length: usize) -> Option<&[u8]> {
        // A flush is complete if it has left room; a message of random bytes fills it.
        let is_complete = self.out.len() < self.out.capacity() && self.out.len() < length + FLUSH_END.len();
        self.out.strip_suffix(&FLUSH_END).filter(|_| is_complete && self.state.total_in() == length as u64)
    }
}

/// Frame of a message whose payload was compressed by itself.
pub(crate) fn deflated_frame(plain: &Bytes, packed: &[u8]) -> Option<Bytes> {
    Some(frame_from(plain.first()? | COMPRESSED, packed))
}

#[cfg(test)]
mod tests {
    use super::super::{Opcode, frame, ping};
    use super::*;

    /// Payload of a frame, and the bits of its head.
    fn unpacked(frame: &Bytes) -> (u8, Bytes) {
        let payload = super::super::payload_bytes(frame);
        (frame[0], frame.slice(frame.len() - payload..))
    }

    #[test]
    fn a_frame_gets_smaller_and_keeps_its_kind() {
        let text = "{\"type\":1,\"target\":\"Said\",\"arguments\":[\"ha\"]}\u{1e}".repeat(20);
        let mut deflater = Deflater::default();
        for (opcode, first) in [(Opcode::Text, 0xc1), (Opcode::Binary, 0xc2)] {
            let twin = deflater.deflate_frame(&frame(opcode, text.as_bytes())).unwrap();
            let (head, payload) = unpacked(&twin);
            assert_eq!(head, first);
            assert!(payload.len() < 100, "{} bytes", payload.len());
            assert!(!payload.ends_with(&FLUSH_END));
        }
    }

    #[test]
    fn messages_become_as_small_as_with_zlib() {
        // Sizes by zlib 1.2.13 at level 6.
        for (rows, of_zlib) in [(6, 93), (60, 500), (600, 4551)] {
            let row =
                |n: u32| format!("{{\"id\":{n},\"name\":\"item {}\",\"price\":{}}},", n * 7919 % 1000, n * 31 % 977);
            let text: String = (0..rows).map(row).collect();
            let (_, payload) =
                unpacked(&Deflater::default().deflate_frame(&frame(Opcode::Text, text.as_bytes())).unwrap());
            assert!(payload.len() * 100 <= of_zlib * 102, "{} bytes of {}, zlib: {of_zlib}", payload.len(), text.len());
        }
    }

    #[test]
    fn the_same_message_becomes_the_same_bytes_whatever_came_before() {
        let (one, other) = (frame(Opcode::Text, &[b'a'; 1000]), frame(Opcode::Text, "abc".repeat(500).as_bytes()));
        let mut deflater = Deflater::default();
        let first = deflater.deflate_frame(&one).unwrap();
        deflater.deflate_frame(&other).unwrap();
        assert_eq!(deflater.deflate_frame(&one).unwrap(), first);
    }

    #[test]
    fn what_gets_no_smaller_stays_plain() {
        let mut deflater = Deflater::default();
        // A linear congruential generator: bytes without repetition.
        let noise: Vec<u8> = (0..100_000_u64)
            .scan(1_u64, |state, _| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Some(state.to_be_bytes()[0])
            })
            .collect();
        for length in [0, 1, 2, 5, 300, 100_000] {
            let plain = frame(Opcode::Binary, &noise[..length]);
            assert_eq!(deflater.deflate_frame(&plain), None, "{length} bytes");
        }
        assert_eq!(deflater.deflate_frame(&ping()), None);
        assert_eq!(deflater.deflate_frame(&Bytes::new()), None);
        let twin = deflater.deflate_frame(&frame(Opcode::Binary, &[7; 3000])).unwrap();
        assert_eq!(deflater.deflate_frame(&twin), None, "a compressed frame");
    }
}
