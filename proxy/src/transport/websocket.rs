//! WebSockets, server side: frames of RFC 6455 without extensions, as pure steps over byte slices.
//!
//! A client's frames are decoded in place and handed on piece by piece, because one frame may hold any number
//! of hub messages (the JavaScript client sends all that waited in one). Ours are never masked, so a frame is
//! made once and shared by all who get it.

#[cfg(test)]
mod conformance;
mod decode;
mod encode;
mod farewell;

pub use decode::{Decoder, Event, ProtocolError};
pub use encode::{CLOSE_NORMAL, Opcode, close, frame, pong};
