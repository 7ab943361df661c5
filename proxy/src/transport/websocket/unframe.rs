//! Unframing of our own frames, for transports that carry their payload in another way.

use bytes::{Buf, Bytes, BytesMut};

use super::frame_encoder::{FIN, LENGTH_16, LENGTH_64, Opcode};

/// Content of one of our frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unframed {
    /// The payload of a data frame.
    Payload(Bytes),
    /// A close frame, which ends the connection.
    Close,
    /// A ping or pong, which only the transport needs.
    Other,
}

/// Takes the first frame off the buffer, and unframes it; `None` while it is not whole.
pub fn unframe(buffer: &mut BytesMut) -> Option<Unframed> {
    let (opcode, header, length) = header(buffer)?;
    if buffer.len() < header.checked_add(length)? {
        // So that the rest is read in one piece.
        buffer.reserve((header + length).saturating_sub(buffer.len()));
        return None;
    }
    buffer.advance(header);
    let payload = buffer.split_to(length).freeze();
    Some(unframed(opcode, payload))
}

/// Unframes one of our frames; `None` for a part of one.
pub fn unframe_whole(frame: &Bytes) -> Option<Unframed> {
    let (opcode, begin, length) = header(frame)?;
    let end = begin.checked_add(length).filter(|end| *end <= frame.len())?;
    Some(unframed(opcode, frame.slice(begin..end)))
}

/// Whether one of our frames carries a text.
#[must_use]
pub(crate) fn is_text(frame: &[u8]) -> bool {
    header(frame).is_some_and(|(opcode, ..)| opcode == Opcode::Text.number())
}

fn unframed(opcode: u8, payload: Bytes) -> Unframed {
    match opcode {
        opcode if opcode == Opcode::Close.number() => Unframed::Close,
        opcode if opcode == Opcode::Text.number() || opcode == Opcode::Binary.number() => Unframed::Payload(payload),
        _ => Unframed::Other,
    }
}

/// Reads opcode, length of the header, and length of the payload.
fn header(buffer: &[u8]) -> Option<(u8, usize, usize)> {
    let (&[first, second], rest) = buffer.split_first_chunk()?;
    let opcode = first & !FIN;
    Some(match second {
        LENGTH_16 => (opcode, 4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        LENGTH_64 => (opcode, 10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (opcode, 2, usize::from(short)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{CLOSE_NORMAL, close, frame, put_pong};
    use super::*;

    #[test]
    fn every_frame_that_we_make_comes_apart_wherever_it_is_cut() {
        let payloads: Vec<Vec<u8>> = [0, 1, 125, 126, 65_535, 65_536].map(|length| vec![7; length]).into();
        for payload in &payloads {
            let mut bytes = BytesMut::from(&frame(Opcode::Binary, payload)[..]);
            put_pong(b"x", &mut bytes);
            bytes.extend_from_slice(&close(CLOSE_NORMAL));
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
