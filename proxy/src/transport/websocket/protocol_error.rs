//! Broken rules of the WebSocket protocol, and the check of the payload of a close frame: empty, or a code that may be
//! sent and a reason in UTF-8.

/// A broken rule of RFC 6455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A client must mask its frames.
    #[error("frame is not masked")]
    Unmasked,
    /// No extension was agreed upon.
    #[error("a reserved bit is set")]
    Reserved,
    /// No such kind of frame.
    #[error("unknown opcode {0}")]
    Opcode(u8),
    /// Control frames are short and whole.
    #[error("control frame is fragmented or longer than 125 bytes")]
    Control,
    /// A continuation without a beginning, or a beginning within a message.
    #[error("fragments are out of order")]
    Fragment,
    /// A message that never gets longer.
    #[error("too many empty fragments in a row")]
    EmptyFragments,
    /// Lengths have 63 bits.
    #[error("length is out of range")]
    Length,
    /// A code has two bytes.
    #[error("close frame has one byte")]
    CloseLength,
    /// Not a code that may be sent.
    #[error("close code {0} may not be sent")]
    CloseCode(u16),
    /// A reason is text.
    #[error("the reason in a close frame is no UTF-8")]
    CloseReason,
}

/// Checks the payload of a close frame.
///
/// # Errors
/// When it breaks a rule of RFC 6455, 5.5.1 and 7.4.
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

/// Codes of the registry, of libraries and of applications. 1004 to 1006 and 1015 only name what happened here.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
