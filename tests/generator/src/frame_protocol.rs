//! Message format of a client: distinguishes messages from keep-alives.

use anyhow::{Result, ensure};

use crate::frame::{self, Frame, Opcode};

/// JSON hub ping, sent by a proxy after some idle time.
pub const PING: &[u8] = b"{\"type\":6}\x1e";
/// MessagePack hub ping with its length prefix.
pub const BINARY_PING: &[u8] = &[2, 0x91, 6];

/// Hub handshake of a JSON client.
pub const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";
/// Hub handshake of a MessagePack client, which is also JSON.
const HANDSHAKE_BINARY: &[u8] = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e";
/// Response that accepts a hub handshake.
pub const HANDSHAKE_ANSWER: &[u8] = b"{}\x1e";

/// Meaning of a frame for a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Message of the hub.
    Message(&'a [u8]),
    /// Keep-alive that needs no answer.
    KeepAlive,
    /// Keep-alive to be answered with this text.
    Question(&'static [u8]),
}

/// Interpretation of frames by a client.
pub trait FrameProtocol: Copy {
    /// Interprets a frame.
    ///
    /// # Errors
    /// If this client does not accept this kind of frame.
    fn receive<'a>(self, frame: &Frame<'a>) -> Result<Heard<'a>>;

    /// Whether messages are binary frames.
    fn is_binary(self) -> bool {
        false
    }
}

/// Hub protocol of SignalR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hub {
    /// JSON in text frames.
    Json,
    /// MessagePack in binary frames.
    MessagePack,
}

impl Hub {
    /// Opcode of its frames.
    #[must_use]
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::MessagePack => Opcode::Binary,
        }
    }

    /// Encodes a client message as a frame.
    #[must_use]
    pub fn frame(self, message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame::put(self.opcode(), message, &mut frame);
        frame
    }

    /// Encodes the hub handshake as a frame.
    #[must_use]
    pub fn handshake(self) -> Vec<u8> {
        frame::from_client(match self {
            Self::Json => HANDSHAKE,
            Self::MessagePack => HANDSHAKE_BINARY,
        })
    }
}

impl FrameProtocol for Hub {
    fn receive<'a>(self, frame: &Frame<'a>) -> Result<Heard<'a>> {
        let (is_due, ping) = match self {
            Self::Json => (frame.opcode == Opcode::Text, PING),
            Self::MessagePack => (frame.opcode == Opcode::Binary, BINARY_PING),
        };
        ensure!(is_due && frame.is_final, "a frame {:?} came where a message of {self:?} was due", frame.opcode);
        if frame.payload == ping {
            return Ok(Heard::KeepAlive);
        }
        // Servers may combine a ping and a message in one frame, which is unambiguous only in JSON.
        let message = match self {
            Self::Json => {
                let message = frame.payload.strip_prefix(ping).unwrap_or(frame.payload);
                message.strip_suffix(ping).unwrap_or(message)
            }
            Self::MessagePack => frame.payload,
        };
        Ok(Heard::Message(message))
    }

    fn is_binary(self) -> bool {
        self == Self::MessagePack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_a_keep_alive_and_another_kind_of_frame_an_error() {
        let frame = |opcode, payload: &'static [u8]| Frame { is_final: true, opcode, payload, rest: &[] };
        assert_eq!(Hub::Json.receive(&frame(Opcode::Text, PING)).unwrap(), Heard::KeepAlive);
        assert_eq!(Hub::Json.receive(&frame(Opcode::Text, b"{}\x1e")).unwrap(), Heard::Message(b"{}\x1e"));
        let both: [&[u8]; 2] = [b"{\"type\":6}\x1e{}\x1e", b"{}\x1e{\"type\":6}\x1e"];
        assert!(
            both.iter().all(|both| Hub::Json.receive(&frame(Opcode::Text, both)).unwrap() == Heard::Message(b"{}\x1e"))
        );
        assert_eq!(Hub::MessagePack.receive(&frame(Opcode::Binary, BINARY_PING)).unwrap(), Heard::KeepAlive);
        assert!(Hub::Json.receive(&frame(Opcode::Close, b"")).is_err());
        assert!(Hub::MessagePack.receive(&frame(Opcode::Text, PING)).is_err());
    }
}
