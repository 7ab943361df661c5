//! WebSockets, server side: frames of RFC 6455 without extensions, as pure steps over byte slices.
//!
//! A client's frames are decoded in place and handed on piece by piece, because one frame may hold any number
//! of hub messages (the JavaScript client sends all that waited in one). Ours are never masked, so a frame is
//! made once and shared by all who get it.

mod decode;
mod encode;
mod farewell;
mod peel;

pub use decode::{Decoder, Event, Form, Place, ProtocolError};
pub use encode::{
    CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, Opcode,
    close, frame, payload_bytes, ping, pong,
};
pub use peel::{Peeled, peel, peel_whole};
