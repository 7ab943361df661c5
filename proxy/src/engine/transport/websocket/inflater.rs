//! Decompression of messages from clients (permessage-deflate, RFC 7692), without a context.
//!
//! The bytes of an incomplete message are stored as they come, so a client needs no decompressor of its own. Pieces
//! have a limited size: the length of the message is not known before, and its reader decides how many it takes.

use flate2::{Decompress, FlushDecompress, Status};

use super::ProtocolError;

/// Maximum size of a piece, compressed and decompressed.
const PIECE_BYTES: usize = 16 * 1024;

/// End of a flush, which clients leave out, and the last, empty block of a stream. Behind a complete message the stream
/// ends here, behind a truncated one it does not.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

/// Decompressor for messages, one after the other.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
    out: Box<[u8]>,
    /// Message with its [`END`]; empty once it was read.
    message: Vec<u8>,
    length: usize,
    read: usize,
    inflated: usize,
}

impl Default for Inflater {
    fn default() -> Self {
        let (state, out) = (Decompress::new(false), vec![0; PIECE_BYTES].into_boxed_slice());
        Self { state, out, message: Vec::new(), length: 0, read: 0, inflated: 0 }
    }
}

impl Inflater {
    /// Begins to read a compressed message.
    pub fn begin_message(&mut self, message: Vec<u8>) {
        (self.length, self.read, self.inflated) = (message.len(), 0, 0);
        self.message = message;
        self.message.extend_from_slice(&END);
        self.state.reset(false);
    }

    /// Number of compressed bytes, and of those decompressed so far.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.length, self.inflated)
    }

    /// Memory of the message, and some 64 KiB for window and tables.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.message.capacity() + 4 * PIECE_BYTES
    }

    /// Decompresses the next piece, and returns its length; `None` at the end of the message. A piece may be empty.
    ///
    /// # Errors
    /// If the message is corrupt or truncated.
    pub fn inflate(&mut self) -> Result<Option<usize>, ProtocolError> {
        if self.message.is_empty() {
            return Ok(None);
        }
        let (read, written) = (self.state.total_in(), self.state.total_out());
        let rest = self.message.get(self.read..).unwrap_or_default();
        let rest = rest.get(..PIECE_BYTES).unwrap_or(rest);
        let status = self.state.decompress(rest, &mut self.out, FlushDecompress::None);
        let status = status.map_err(|_| ProtocolError::Compression)?;
        let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
        let length = usize::try_from(self.state.total_out() - written).unwrap_or(usize::MAX);
        (self.read, self.inflated) = (self.read.saturating_add(read), self.inflated.saturating_add(length));
        match status {
            Status::StreamEnd if [self.length, self.message.len()].contains(&self.read) => self.message = Vec::new(),
            // The client has marked a block as its last one, and goes on (RFC 7692, 7.2.3.4).
            Status::StreamEnd if self.read < self.length => self.state.reset(false),
            Status::StreamEnd => return Err(ProtocolError::Compression),
            Status::Ok | Status::BufError if read == 0 && length == 0 => return Err(ProtocolError::Compression),
            Status::Ok | Status::BufError => {}
        }
        Ok(Some(length))
    }

    /// The piece decompressed last, of this length.
    #[must_use]
    pub fn piece(&self, length: usize) -> &[u8] {
        self.out.get(..length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflater::Deflater;
    use super::super::{Opcode, frame, payload_bytes};
    use super::*;

    fn inflate(inflater: &mut Inflater, bytes: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut data = Vec::new();
        inflater.begin_message(bytes.to_vec());
        while let Some(length) = inflater.inflate()? {
            assert!(length <= PIECE_BYTES);
            data.extend_from_slice(inflater.piece(length));
        }
        assert_eq!(inflater.lengths(), (bytes.len(), data.len()));
        Ok(data)
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

    #[tokio::test]
    async fn a_payload_is_compressed_in_pieces_as_one() {
        for length in [100, 32 * 1024, 32 * 1024 + 1, 1_000_000] {
            let text: Vec<u8> = (0..length).map(|at| b'a' + u8::try_from(at * at % 23).unwrap()).collect();
            let packed = Deflater::default().deflate_in_pieces(&text).await.unwrap();
            assert!(packed.len() < length && inflate(&mut Inflater::default(), &packed).as_ref() == Ok(&text));
        }
        let noise = trunkline_protocol::id::random_bytes::<100_000>();
        assert_eq!(Deflater::default().deflate_in_pieces(&noise).await, None);
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
        let mut inflater = Inflater::default();
        inflater.begin_message(deflated(&vec![0; 10_000_000]));
        assert_eq!(inflater.inflate(), Ok(Some(PIECE_BYTES)));
        assert!(inflater.lengths().0 < 15_000);
        assert_eq!(inflater.lengths().1, PIECE_BYTES);
    }

    #[test]
    fn blocks_without_content_are_read_in_pieces_too() {
        // Empty last blocks, and empty stored blocks.
        for block in [&[3, 0][..], &[0, 0, 0, 0xff, 0xff]] {
            let (mut inflater, mut pieces) = (Inflater::default(), 0);
            inflater.begin_message([block.repeat(20_000), vec![0]].concat());
            while let Some(length) = inflater.inflate().unwrap() {
                assert_eq!(length, 0);
                pieces += 1;
            }
            assert!(pieces > 2, "{pieces} pieces");
        }
    }

    #[test]
    fn a_message_that_was_read_takes_no_memory() {
        let mut inflater = Inflater::default();
        let idle = inflater.memory();
        inflater.begin_message(vec![3; 1_000_000]);
        assert!(inflater.memory() >= idle + 1_000_000);
        assert_eq!(inflate(&mut inflater, &[0]), Ok(vec![]));
        assert_eq!(inflater.memory(), idle);
    }
}
