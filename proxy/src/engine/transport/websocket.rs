//! WebSocket frames, server side: RFC 6455 and compression (RFC 7692), as pure functions on byte slices.
//!
//! Client frames are decoded in place and forwarded in parts, because one frame may contain many hub messages (all
//! queued ones of the JavaScript client). Server frames are unmasked, so all recipients share one encoded frame.

mod deflater;
mod frame_decoder;
mod frame_encoder;
mod inflater;
mod unframe;

pub use deflater::Deflater;
pub(crate) use deflater::deflated_frame;
pub use frame_decoder::{Decoder, Event, MessageForm, PiecePosition};
pub use frame_encoder::{
    CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, Opcode,
    close_frame, frame, payload_bytes, ping, put_pong,
};
pub use inflater::Inflater;
pub(crate) use unframe::{FrameContent, FrameHead};
pub use unframe::{Unframed, unframe, unframe_whole};

/// Violation of RFC 6455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Client frames must be masked.
    #[error("frame is not masked")]
    Unmasked,
    /// No extension was negotiated that uses it here.
    #[error("a reserved bit is set")]
    Reserved,
    /// Corrupt or truncated compressed data.
    #[error("compressed data is corrupt")]
    Compression,
    /// Unknown kind of frame.
    #[error("unknown opcode {0}")]
    Opcode(u8),
    /// Control frames must be short and unfragmented.
    #[error("control frame is fragmented or longer than 125 bytes")]
    Control,
    /// Continuation without a beginning, or a beginning within a message.
    #[error("fragments are out of order")]
    Fragment,
    /// Too many empty fragments in a row.
    #[error("too many empty fragments in a row")]
    EmptyFragments,
    /// Lengths are limited to 63 bits.
    #[error("length is out of range")]
    Length,
    /// A close code has two bytes.
    #[error("close frame has one byte")]
    CloseLength,
    /// Code that must not be sent.
    #[error("close code {0} may not be sent")]
    CloseCode(u16),
    /// A close reason must be text.
    #[error("the reason in a close frame is not UTF-8")]
    CloseReason,
}

/// Validates the payload of a close frame. Fails if it violates RFC 6455, 5.5.1 or 7.4.
fn check_close_payload(payload: &[u8]) -> Result<(), ProtocolError> {
    let (code, reason) = match payload {
        [] => return Ok(()),
        [_] => return Err(ProtocolError::CloseLength),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !may_be_sent(code) {
        return Err(ProtocolError::CloseCode(code));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(ProtocolError::CloseReason);
    }
    Ok(())
}

/// Codes of the registry, libraries and applications. 1004 to 1006 and 1015 are for local use only.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
