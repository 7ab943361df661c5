//! WebSocket protocol violations, and validation of close payloads: empty, or a permitted code with a UTF-8 reason.

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
pub(super) fn check_close_payload(payload: &[u8]) -> Result<(), ProtocolError> {
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
