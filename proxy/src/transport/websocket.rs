//! WebSocket frames, server side: RFC 6455 and compression (RFC 7692), as pure functions on byte slices.
//!
//! Client frames are decoded in place and forwarded in parts, because one frame may contain many hub messages (all
//! queued ones of the JavaScript client). Server frames are unmasked, so all recipients share one encoded frame.

mod deflater;
mod frame_decoder;
mod frame_encoder;
mod inflater;
mod protocol_error;
mod unframe;

pub use deflater::Deflater;
pub use frame_decoder::{Decoder, Event, MessageForm, PiecePosition};
pub use frame_encoder::{
    CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, Opcode,
    close, frame, payload_bytes, ping, put_pong,
};
pub use inflater::Inflater;
pub use protocol_error::ProtocolError;
pub(crate) use unframe::{FrameContent, FrameHead};
pub use unframe::{Unframed, unframe, unframe_whole};
