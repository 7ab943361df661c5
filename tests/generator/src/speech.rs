//! Speech of a client: how it tells messages from keep-alives.

use anyhow::{Result, ensure};

use crate::frame::{self, Frame, Opcode};

/// The hub's ping in JSON, which a proxy sends to a client after a while of silence.
pub const PING: &[u8] = b"{\"type\":6}\x1e";
/// The hub's ping in MessagePack, behind its length.
pub const BINARY_PING: &[u8] = &[2, 0x91, 6];

/// The hub handshake of a JSON client.
pub const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";
/// The hub handshake of a MessagePack client, which is JSON, too.
const HANDSHAKE_BINARY: &[u8] = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e";
/// The answer that accepts a hub handshake.
pub const HANDSHAKE_ANSWER: &[u8] = b"{}\x1e";

/// A frame's meaning to a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A message of the hub.
    Message(&'a [u8]),
    /// A keep-alive, which is not answered.
    KeepAlive,
    /// A keep-alive that is answered with this text.
    Question(&'static [u8]),
}

/// Reading of frames by a client.
pub trait Speech: Copy {
    /// Reads a frame.
    ///
    /// # Errors
    /// When it is a kind of frame that this client does not take.
    fn hear<'a>(self, frame: &Frame<'a>) -> Result<Heard<'a>>;

    /// Whether messages are binary.
    fn is_binary(self) -> bool {
        false
    }
}

/// A hub protocol of SignalR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hub {
    /// JSON, in text frames.
    Json,
    /// MessagePack, in binary frames.
    MessagePack,
}

impl Hub {
    /// The opcode of its frames.
    #[must_use]
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::MessagePack => Opcode::Binary,
        }
    }

    /// The frame of a client's message.
    #[must_use]
    pub fn frame(self, message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame::put(self.opcode(), message, &mut frame);
        frame
    }

    /// The frame of the hub handshake.
    #[must_use]
    pub fn handshake(self) -> Vec<u8> {
        frame::from_client(match self {
            Self::Json => HANDSHAKE,
            Self::MessagePack => HANDSHAKE_BINARY,
        })
    }
}

impl Speech for Hub {
    fn hear<'a>(self, frame: &Frame<'a>) -> Result<Heard<'a>> {
        let (is_due, ping) = match self {
            Self::Json => (frame.opcode == Opcode::Text, PING),
            Self::MessagePack => (frame.opcode == Opcode::Binary, BINARY_PING),
        };
        ensure!(is_due && frame.is_final, "a frame {:?} came where a message of {self:?} was due", frame.opcode);
        if frame.payload == ping {
            return Ok(Heard::KeepAlive);
        }
        // Servers may put a ping and a message into one frame; only in JSON is it told from the message's own bytes.
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
        assert_eq!(Hub::Json.hear(&frame(Opcode::Text, PING)).unwrap(), Heard::KeepAlive);
        assert_eq!(Hub::Json.hear(&frame(Opcode::Text, b"{}\x1e")).unwrap(), Heard::Message(b"{}\x1e"));
        let both: [&[u8]; 2] = [b"{\"type\":6}\x1e{}\x1e", b"{}\x1e{\"type\":6}\x1e"];
        assert!(
            both.iter().all(|both| Hub::Json.hear(&frame(Opcode::Text, both)).unwrap() == Heard::Message(b"{}\x1e"))
        );
        assert_eq!(Hub::MessagePack.hear(&frame(Opcode::Binary, BINARY_PING)).unwrap(), Heard::KeepAlive);
        assert!(Hub::Json.hear(&frame(Opcode::Close, b"")).is_err());
        assert!(Hub::MessagePack.hear(&frame(Opcode::Text, PING)).is_err());
    }
}
