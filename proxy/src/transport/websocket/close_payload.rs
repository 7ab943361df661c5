//! Payload of a client's close frame: empty, or a code that may be sent and a reason in UTF-8.

use super::protocol_error::ProtocolError;

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
