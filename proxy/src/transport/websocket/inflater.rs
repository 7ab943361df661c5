//! Decompression of messages from clients (permessage-deflate, RFC 7692), without a context.
//!
//! ```text
//!  compressed frames ──► DeflatedMessage ── whole ──► Inflater ──► pieces of the message
//! ```
//!
//! The bytes of an incomplete message are stored as they come, so a client needs no decompressor of its own. Pieces
//! have a limited size: the length of the message is not known before, and its reader decides how many it takes.

use flate2::{Decompress, FlushDecompress, Status};

use super::deflater::FLUSH_END;
use super::protocol_error::ProtocolError;

/// Maximum size of a piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Last, empty block of a stream. Behind a complete message the stream ends here, behind a truncated one it does not.
const LAST_BLOCK: [u8; 2] = [3, 0];

const TAIL_BYTES: usize = FLUSH_END.len() + LAST_BLOCK.len();

/// Decompressor for messages, one after the other; about 60 KiB.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
    out: Box<[u8]>,
}

/// Compressed message of a client.
#[derive(Debug, Default)]
pub struct DeflatedMessage {
    bytes: Vec<u8>,
    /// Number of decompressed bytes.
    read: usize,
    inflated: usize,
    stage: InflateStage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum InflateStage {
    #[default]
    Incomplete,
    Whole,
    Reading,
    Read,
}

impl DeflatedMessage {
    /// Appends bytes of a frame.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the message after its last frame.
    pub fn end(&mut self) {
        self.bytes.extend_from_slice(&FLUSH_END);
        self.bytes.extend_from_slice(&LAST_BLOCK);
        self.stage = InflateStage::Whole;
    }

    /// Whether all frames have arrived.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.stage != InflateStage::Incomplete
    }

    /// Number of compressed bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len() - if self.is_whole() { TAIL_BYTES } else { 0 }
    }

    /// Number of bytes decompressed so far.
    #[must_use]
    pub fn inflated(&self) -> usize {
        self.inflated
    }

    /// Memory of the stored bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self { state: Decompress::new(false), out: vec![0; PIECE_BYTES].into_boxed_slice() }
    }
}

impl Inflater {
    /// Decompresses the next piece of a whole message, and returns its length; 0 at the end of the message.
    ///
    /// # Errors
    /// If the message is corrupt or truncated.
    pub fn inflate(&mut self, message: &mut DeflatedMessage) -> Result<usize, ProtocolError> {
        if message.stage == InflateStage::Whole {
            self.state.reset(false);
            message.stage = InflateStage::Reading;
        }
        let mut length = 0;
        while length == 0 && message.stage == InflateStage::Reading {
            length = self.step(message)?;
        }
        message.inflated += length;
        Ok(length)
    }

    /// The piece decompressed last, of this length.
    #[must_use]
    pub fn piece(&self, length: usize) -> &[u8] {
        self.out.get(..length).unwrap_or_default()
    }

    fn step(&mut self, message: &mut DeflatedMessage) -> Result<usize, ProtocolError> {
        let (read, written) = (self.state.total_in(), self.state.total_out());
        let rest = message.bytes.get(message.read..).unwrap_or_default();
        let status = self.state.decompress(rest, &mut self.out, FlushDecompress::None);
        let status = status.map_err(|_| ProtocolError::Compression)?;
        let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
        let length = usize::try_from(self.state.total_out() - written).unwrap_or(usize::MAX);
        message.read = message.read.saturating_add(read);
        match status {
            Status::StreamEnd if message.read == message.bytes.len() || message.read == message.length() => {
                message.stage = InflateStage::Read;
            }
            // The client has marked a block as its last one, and goes on (RFC 7692, 7.2.3.4).
            Status::StreamEnd if message.read < message.length() => self.state.reset(false),
            Status::StreamEnd => return Err(ProtocolError::Compression),
            Status::Ok | Status::BufError if read == 0 && length == 0 => return Err(ProtocolError::Compression),
            Status::Ok | Status::BufError => {}
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflater::Deflater;
    use super::super::{Opcode, frame, payload_bytes};
    use super::*;

    fn whole(bytes: &[u8]) -> DeflatedMessage {
        let mut message = DeflatedMessage::default();
        message.push(bytes);
        message.end();
        message
    }

    fn inflate(inflater: &mut Inflater, bytes: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let (mut message, mut data) = (whole(bytes), Vec::new());
        loop {
            let length = inflater.inflate(&mut message)?;
            if length == 0 {
                assert_eq!(message.inflated(), data.len());
                return Ok(data);
            }
            assert!(length <= PIECE_BYTES);
            data.extend_from_slice(inflater.piece(length));
        }
    }

    fn deflated(payload: &[u8]) -> Vec<u8> {
        let twin = Deflater::default().deflate_frame(&frame(Opcode::Text, payload)).unwrap();
        twin[twin.len() - payload_bytes(&twin)..].to_vec()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let mut inflater = Inflater::default();
        // RFC 7692: 7.2.3.1, 7.2.3.2 with a context that is reset here, 7.2.3.3, 7.2.3.4, 7.2.3.5, 7.2.3.6.
        for (bytes, text) in [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], "Hello"),
            (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], "Hello"),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], "Hello"),
            (&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], "Hello"),
            (&[0x00], ""),
            (&[0x02, 0x00], ""),
            // Ended by its client at the last block, without the byte behind it.
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], "Hello"),
        ] {
            assert_eq!(inflate(&mut inflater, bytes).as_deref(), Ok(text.as_bytes()), "{bytes:?}");
        }
        let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(inflate(&mut inflater, &second), Err(ProtocolError::Compression), "it needs the context");
    }

    #[test]
    fn long_messages_come_in_pieces() {
        for length in [1_000, PIECE_BYTES, PIECE_BYTES + 1, 1_000_000] {
            let text: Vec<u8> = (0..length).map(|at| b'a' + u8::try_from(at * at % 23).unwrap()).collect();
            assert_eq!(inflate(&mut Inflater::default(), &deflated(&text)), Ok(text), "{length}");
        }
    }

    #[test]
    fn a_truncated_message_is_an_error_wherever_it_is_cut() {
        let text: String = (0..200).map(|number| format!("{{\"number\":{number}}}")).collect();
        let bytes = deflated(text.as_bytes());
        let mut inflater = Inflater::default();
        for length in 1..bytes.len() - 1 {
            assert!(inflate(&mut inflater, &bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        assert_eq!(inflate(&mut inflater, &bytes).unwrap(), text.as_bytes(), "errors leave no trace");
    }

    #[test]
    fn a_corrupt_message_is_an_error_or_other_text_and_ends() {
        let text: String = (0..200).map(|number| format!("{{\"number\":{number}}}")).collect();
        let (bytes, mut errors) = (deflated(text.as_bytes()), 0);
        let mut inflater = Inflater::default();
        for at in 0..bytes.len() {
            let mut corrupt = bytes.clone();
            corrupt[at] ^= 0x55;
            errors += usize::from(inflate(&mut inflater, &corrupt).is_err());
        }
        assert!(errors > bytes.len() / 3, "{errors} of {}", bytes.len());
        assert_eq!(inflate(&mut inflater, &[]), Err(ProtocolError::Compression));
    }

    #[test]
    fn only_what_is_read_is_decompressed() {
        let mut message = whole(&deflated(&vec![0; 10_000_000]));
        assert!(message.length() < 15_000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&mut message), Ok(PIECE_BYTES));
        assert_eq!(message.inflated(), PIECE_BYTES);
    }
}
