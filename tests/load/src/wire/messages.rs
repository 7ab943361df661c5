//! Splits bytes into consecutive hub messages.

use trunkline_protocol::hub::{HubProtocol, next_frame};

/// Maximum size of a hub message, and of an event or response around one.
pub(crate) const MESSAGE_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Error for bytes that are not hub messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad framing of a hub message")]
pub(crate) struct FramingError;

/// Passes on the bodies of all complete messages and returns the remaining bytes.
pub(crate) fn split<'a>(
    protocol: HubProtocol,
    mut bytes: &'a [u8],
    mut notify: impl FnMut(&'a [u8]),
) -> Result<&'a [u8], FramingError> {
    while let Some(frame) = next_frame(protocol, bytes, MESSAGE_MAX_BYTES).map_err(|_| FramingError)? {
        notify(bytes.get(frame.body).unwrap_or_default());
        bytes = bytes.get(frame.length..).unwrap_or_default();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_told_and_the_begun_one_is_left() {
        let mut bodies = Vec::new();
        let rest = split(HubProtocol::Json, b"{\"a\":1}\x1e{}\x1e{\"b\"", |body| bodies.push(body)).unwrap();
        assert_eq!((bodies, rest), (vec![&b"{\"a\":1}"[..], b"{}"], &b"{\"b\""[..]));
        assert_eq!(split(HubProtocol::MessagePack, &[0xff; 6], |_| ()), Err(FramingError));
    }
}
