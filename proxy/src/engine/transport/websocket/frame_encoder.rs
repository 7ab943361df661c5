//! Encoder of server frames: unmasked and unfragmented.

use bytes::{BufMut, Bytes, BytesMut};

/// Opcode of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A complete text message.
    Text,
    /// A complete binary message.
    Binary,
    /// Close of the connection, with a code.
    Close,
    /// The answer to a ping.
    Pong,
}

/// Close code of a normal close, with an empty reason. Clients treat all others as errors.
pub const CLOSE_NORMAL: u16 = 1000;

/// Close code if the server or the path to the app goes away; clients reconnect.
pub const CLOSE_GOING_AWAY: u16 = 1001;

/// Close code for a violation of RFC 6455.
pub const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// Close code for a text message that is not UTF-8.
pub const CLOSE_NOT_UTF8: u16 = 1007;

/// Close code for a message over the size limit.
pub const CLOSE_TOO_LARGE: u16 = 1009;

/// Close code if the app server failed while handling the connection.
pub const CLOSE_APP_FAILED: u16 = 1011;

pub(super) const FIN: u8 = 0x80;
/// First reserved bit: the message is compressed (RFC 7692).
pub(super) const COMPRESSED: u8 = 0x40;
pub(super) const LENGTH_16: u8 = 126;
pub(super) const LENGTH_64: u8 = 127;
const HEADER_MAX_BYTES: usize = 10;

/// Payload length of a frame made by [`frame`].
#[must_use]
pub fn payload_bytes(frame: &[u8]) -> usize {
    let header = match frame.get(1) {
        Some(&LENGTH_16) => 4,
        Some(&LENGTH_64) => HEADER_MAX_BYTES,
        _ => 2,
    };
    frame.len().saturating_sub(header)
}

/// Encodes a complete frame around `payload`.
#[must_use]
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    frame_from(FIN | opcode.number(), payload)
}

/// Encodes a complete frame with this first byte.
pub(super) fn frame_from(first: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_MAX_BYTES + payload.len());
    put_frame(first, payload, &mut out);
    out.freeze()
}

fn put_frame(first: u8, payload: &[u8], out: &mut BytesMut) {
    out.put_u8(first);
    if let Ok(length) = u8::try_from(payload.len())
        && length < LENGTH_16
    {
        out.put_u8(length);
    } else if let Ok(length) = u16::try_from(payload.len()) {
        out.put_u8(LENGTH_16);
        out.put_u16(length);
    } else {
        out.put_u8(LENGTH_64);
        out.put_u64(payload.len() as u64);
    }
    out.put_slice(payload);
}

/// Encodes a close frame with a code and no reason.
#[must_use]
pub fn close_frame(code: u16) -> Bytes {
    frame(Opcode::Close, &code.to_be_bytes())
}

/// Ping frame without payload, which every WebSocket peer answers.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(b"\x89\x00")
}

/// Appends the answer to a ping with a payload of at most 125 bytes. All pongs of one read are sent in one write.
pub fn put_pong(payload: &[u8], out: &mut BytesMut) {
    put_frame(FIN | Opcode::Pong.number(), payload, out);
}

impl Opcode {
    pub(super) fn number(self) -> u8 {
        match self {
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Pong => 0xa,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(frame(Opcode::Text, b"{}\x1e").as_ref(), b"\x81\x03{}\x1e");
        assert_eq!(&frame(Opcode::Binary, &[7; 125])[..2], &[0x82, 125]);
        assert_eq!(&frame(Opcode::Binary, &[7; 126])[..4], &[0x82, 126, 0, 126]);
        assert_eq!(&frame(Opcode::Binary, &[7; 65_535])[..4], &[0x82, 126, 0xff, 0xff]);
        assert_eq!(&frame(Opcode::Binary, &[7; 65_536])[..10], &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_close_has_its_code_and_no_reason() {
        assert_eq!(close_frame(CLOSE_NORMAL).as_ref(), &[0x88, 2, 0x03, 0xe8]);
    }
}
