//! WebSocket frames, server side: RFC 6455 without extensions, as pure steps over byte slices.
//!
//! A client's frames are decoded in place and handed on piece by piece, because one frame may hold any number
//! of hub messages (the JavaScript client sends all that waited in one). Ours are never masked, so a frame is
//! made once and shared by all recipients.

mod frame_decoder;
mod frame_encoder;
mod protocol_error;
mod unframe;

pub use frame_decoder::{Decoder, Event, MessageForm, PiecePosition};
pub use frame_encoder::{
    CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, Opcode,
    close, frame, payload_bytes, ping, put_pong,
};
pub use protocol_error::ProtocolError;
pub(crate) use unframe::{FrameContent, FrameHead, is_text};
pub use unframe::{Unframed, unframe, unframe_whole};
