//! The bytes of one WebSocket, taken apart into hub messages.
//!
//! ```text
//!  socket bytes ──► frames ──► hub messages, which may share a frame or fill several
//! ```
//!
//! Bytes are copied only while a frame or a message is not whole, so an idle connection holds no buffer.

use trunkline_generator::frame::{FrameError, Frames, Opcode};
use trunkline_protocol::hub::HubProtocol;

use super::messages::{self, FramingError};

/// Event that the bytes bring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The body of a hub message.
    Message(&'a [u8]),
    /// The server asks for a pong with these bytes.
    Ping(&'a [u8]),
    /// The server closes the WebSocket.
    Close,
}

/// Why the connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InboundError {
    /// These bytes are no WebSocket.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// These bytes are no hub messages.
    #[error(transparent)]
    Message(#[from] FramingError),
}

/// The reading half of a connection.
#[derive(Debug)]
pub(crate) struct Inbound {
    protocol: HubProtocol,
    frames: Frames,
    /// The part of a hub message that is here.
    message: Vec<u8>,
}

impl Inbound {
    pub(crate) fn new(protocol: HubProtocol) -> Self {
        Self { protocol, frames: Frames::default(), message: Vec::new() }
    }

    /// Takes bytes from the socket, and tells what they bring.
    pub(crate) fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(Event<'_>)) -> Result<(), InboundError> {
        let Self { protocol, frames, message } = self;
        frames.take(bytes, |frame| {
            match frame.opcode {
                Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                    take_payload(*protocol, message, frame.payload, &mut tell)?;
                }
                Opcode::Ping => tell(Event::Ping(frame.payload)),
                Opcode::Pong => {}
                Opcode::Close => tell(Event::Close),
            }
            Ok(())
        })
    }
}

/// Takes the payload of a frame; `partial` is the part of a hub message that came before.
fn take_payload(
    protocol: HubProtocol,
    partial: &mut Vec<u8>,
    payload: &[u8],
    tell: &mut impl FnMut(Event<'_>),
) -> Result<(), FramingError> {
    if partial.is_empty() {
        let rest = messages::split(protocol, payload, |body| tell(Event::Message(body)))?;
        partial.extend_from_slice(rest);
        return Ok(());
    }
    let mut whole = std::mem::take(partial);
    whole.extend_from_slice(payload);
    *partial = messages::split(protocol, &whole, |body| tell(Event::Message(body)))?.to_vec();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two frames: a message and a half, the other half; a ping between them.
    const BYTES: &[u8] = b"\x81\x0b{\"a\":1}\x1e{\"b\x89\x02hi\x80\x05\":2}\x1e";

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let mut inbound = Inbound::new(HubProtocol::Json);
        let mut events = Vec::new();
        for chunk in chunks {
            let note = |event: Event<'_>| {
                events.push(match event {
                    Event::Message(body) | Event::Ping(body) => String::from_utf8_lossy(body).into_owned(),
                    Event::Close => "close".into(),
                });
            };
            inbound.take(chunk, note).unwrap();
        }
        assert!(inbound.frames.is_empty() && inbound.message.is_empty());
        events
    }

    #[test]
    fn messages_are_whole_however_the_bytes_are_cut() {
        let expected = ["{\"a\":1}", "hi", "{\"b\":2}"];
        assert_eq!(events(&[BYTES]), expected);
        for cut in 0..BYTES.len() {
            assert_eq!(events(&[&BYTES[..cut], &BYTES[cut..]]), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = BYTES.chunks(1).collect();
        assert_eq!(events(&bytes), expected);
    }

    #[test]
    fn a_close_is_told() {
        assert_eq!(events(&[b"\x88\x00"]), ["close"]);
    }

    #[test]
    fn bytes_of_another_protocol_are_an_error() {
        let mut inbound = Inbound::new(HubProtocol::MessagePack);
        assert_eq!(inbound.take(b"HTTP/1.1", |_| ()), Err(InboundError::Frame(FrameError)));
    }
}
