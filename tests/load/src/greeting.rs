//! Client side of the hub handshake for any transport. Pure: bytes in, bytes out.

use bytes::Bytes;
use trunkline_protocol::hub::{HandshakeRequest, HandshakeResponse, HubProtocol};

use crate::dial::ConnectError;

/// Maximum size of the response to the upgrade or handshake.
pub(crate) const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// Handshake request of a client; text in both protocols.
pub(crate) fn request(protocol: HubProtocol) -> Bytes {
    HandshakeRequest { protocol, version: 1 }.encode()
}

/// Parses the server's response and returns the offset of the first hub message after it.
pub(crate) fn welcome(bytes: &[u8]) -> Result<usize, ConnectError> {
    let refused = |text: &str| ConnectError::Handshake(text.to_owned());
    let answer =
        HandshakeResponse::read_response(bytes, ANSWER_MAX_BYTES).map_err(|error| refused(&error.to_string()))?;
    let (answer, length) = answer.ok_or_else(|| refused("half an answer"))?;
    match answer.error {
        Some(error) => Err(refused(&error)),
        None => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_answer_ends_where_the_messages_begin() {
        assert_eq!(welcome(b"{}\x1e{\"type\":6}\x1e").unwrap(), 3);
    }

    #[test]
    fn a_refused_handshake_names_the_reason() {
        let told = |bytes: &[u8]| welcome(bytes).unwrap_err().to_string();
        assert_eq!(told(b"{\"error\":\"no\"}\x1e"), "hub handshake refused: no");
        assert_eq!(told(b"{}"), "hub handshake refused: half an answer");
    }
}
