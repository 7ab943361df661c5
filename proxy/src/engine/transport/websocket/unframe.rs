//! Unframing of our own frames, for transports with another encoding.

use bytes::{Buf, Bytes, BytesMut};

use super::frame_encoder::{FIN, LENGTH_16, LENGTH_64, Opcode};

/// Content of one of our frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unframed {
    /// The payload of a data frame.
    Payload(Bytes),
    /// A close frame, which ends the connection.
    Close,
    /// A ping or pong, relevant only to the transport.
    Other,
}

/// Removes the first frame from the buffer and unframes it; `None` if incomplete.
pub fn unframe(buffer: &mut BytesMut) -> Option<Unframed> {
    let FrameHead { content, bytes, payload_bytes } = FrameHead::parse(buffer)?;
    if buffer.len() < bytes.checked_add(payload_bytes)? {
        // Lets the rest arrive in one read.
        buffer.reserve((bytes + payload_bytes).saturating_sub(buffer.len()));
        return None;
    }
    buffer.advance(bytes);
    let payload = buffer.split_to(payload_bytes).freeze();
    Some(unframed(content, payload))
}

/// Unframes a frame of ours; `None` if incomplete.
pub fn unframe_whole(frame: &Bytes) -> Option<Unframed> {
    let FrameHead { content, bytes, payload_bytes } = FrameHead::parse(frame)?;
    let end = bytes.checked_add(payload_bytes).filter(|end| *end <= frame.len())?;
    Some(unframed(content, frame.slice(bytes..end)))
}

fn unframed(content: FrameContent, payload: Bytes) -> Unframed {
    match content {
        FrameContent::Message => Unframed::Payload(payload),
        FrameContent::Close => Unframed::Close,
        FrameContent::Other => Unframed::Other,
    }
}

/// Content of a frame of ours, according to its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameContent {
    Message,
    Close,
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHead {
    pub(crate) content: FrameContent,
    pub(crate) bytes: usize,
    pub(crate) payload_bytes: usize,
}

impl FrameHead {
    /// Maximum length of a head.
    pub(crate) const BYTES_MAX: usize = 10;

    /// Parses the head at the start of these bytes; `None` if incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let content = match first & !FIN {
            opcode if opcode == Opcode::Close.number() => FrameContent::Close,
            opcode if opcode == Opcode::Text.number() || opcode == Opcode::Binary.number() => FrameContent::Message,
            _ => FrameContent::Other,
        };
        let (bytes, payload_bytes) = match second {
            LENGTH_16 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
            LENGTH_64 => (Self::BYTES_MAX, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
            short => (2, usize::from(short)),
        };
        Some(Self { content, bytes, payload_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CLOSE_NORMAL, close_frame, frame, put_pong};
    use super::*;

    #[test]
    fn every_frame_that_we_make_comes_apart_wherever_it_is_cut() {
        let payloads: Vec<Vec<u8>> = [0, 1, 125, 126, 65_535, 65_536].map(|length| vec![7; length]).into();
        for payload in &payloads {
            let mut bytes = BytesMut::from(&frame(Opcode::Binary, payload)[..]);
            put_pong(b"x", &mut bytes);
            bytes.extend_from_slice(&close_frame(CLOSE_NORMAL));
            for cut in [1, 2, 3, 5, 9, 11, bytes.len() / 2, bytes.len() - 1] {
                let cut = cut.min(bytes.len());
                let (mut buffer, mut seen) = (BytesMut::new(), vec![]);
                for piece in [&bytes[..cut], &bytes[cut..]] {
                    buffer.extend_from_slice(piece);
                    seen.extend(std::iter::from_fn(|| unframe(&mut buffer)));
                }
                let expected = [Unframed::Payload(payload.clone().into()), Unframed::Other, Unframed::Close];
                assert_eq!(seen, expected, "{} bytes, cut at {cut}", payload.len());
            }
        }
    }

    #[test]
    fn text_is_payload_too() {
        let mut buffer = BytesMut::from(&frame(Opcode::Text, b"{}\x1e")[..]);
        assert_eq!(unframe(&mut buffer), Some(Unframed::Payload(Bytes::from_static(b"{}\x1e"))));
        assert_eq!(unframe(&mut buffer), None);
    }
}
