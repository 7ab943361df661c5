//! Splits the bytes of one WebSocket into hub messages.
//!
//! ```text
//!  socket bytes ──► frames ──► hub messages, which may share a frame or fill several
//! ```
//!
//! Bytes are copied only for incomplete frames or messages, so an idle connection has no buffer.

use trunkline_generator::frame::{FrameError, Frames, Opcode};
use trunkline_protocol::hub::HubProtocol;

use super::messages::{self, FramingError};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Body of a hub message.
    Message(&'a [u8]),
    /// Request for a pong with these bytes.
    Ping(&'a [u8]),
    Close,
}

/// Error that ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InboundError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] FramingError),
}

/// Reading half of a connection.
#[derive(Debug)]
pub(crate) struct Inbound {
    protocol: HubProtocol,
    frames: Frames,
    /// Buffer for an incomplete hub message.
    message: Vec<u8>,
}

impl Inbound {
    pub(crate) fn new(protocol: HubProtocol) -> Self {
        Self { protocol, frames: Frames::default(), message: Vec::new() }
    }

    /// Processes bytes from the socket and passes on their events.
    pub(crate) fn take(&mut self, bytes: &[u8], mut notify: impl FnMut(Event<'_>)) -> Result<(), InboundError> {
        let Self { protocol, frames, message } = self;
        frames.take(bytes, |frame| {
            match frame.opcode {
                Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                    take_payload(*protocol, message, frame.payload, &mut notify)?;
                }
                Opcode::Ping => notify(Event::Ping(frame.payload)),
                Opcode::Pong => {}
                Opcode::Close => notify(Event::Close),
            }
            Ok(())
        })
    }
}

/// Processes the payload of a frame. `partial` is an incomplete earlier hub message.
fn take_payload(
    protocol: HubProtocol,
    partial: &mut Vec<u8>,
    payload: &[u8],
    notify: &mut impl FnMut(Event<'_>),
) -> Result<(), FramingError> {
    if partial.is_empty() {
        let rest = messages::split(protocol, payload, |body| notify(Event::Message(body)))?;
        partial.extend_from_slice(rest);
        return Ok(());
    }
    let mut whole = std::mem::take(partial);
    whole.extend_from_slice(payload);
    *partial = messages::split(protocol, &whole, |body| notify(Event::Message(body)))?.to_vec();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two frames: one and a half messages, then the other half, with a ping in between.
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
