//! Hub handshake: a client chooses the hub protocol, and the server answers.
//!
//! Always JSON with a record separator, for any protocol. Texts match the official server.

use bytes::{BufMut, Bytes, BytesMut};

use super::members::{self, Members};
use super::{HubProtocol, RECORD_SEPARATOR, json_encoding, next_frame_behind};

/// Version of both hub protocols without stateful reconnect.
pub const HUB_PROTOCOL_VERSION: u32 = 1;

/// Version of both hub protocols with stateful reconnect.
pub const HUB_PROTOCOL_VERSION_STATEFUL: u32 = 2;

/// Start of the text in a close message after an error, as in the official server. Details may follow.
pub const CLOSED_WITH_ERROR: &str = "Connection closed with an error.";

/// Highest supported version of both protocols. Versions differ only in stateful reconnect.
const VERSION_MAX: u32 = HUB_PROTOCOL_VERSION_STATEFUL;

/// Handshake request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeRequest {
    /// Encoding of all further messages.
    pub protocol: HubProtocol,
    /// 1, or 2 for stateful reconnect.
    pub version: u32,
}

/// Reason for refusing a handshake. The text is sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The protocol is not supported.
    #[error("The protocol '{0}' is not supported.")]
    Protocol(String),
    /// The version is not supported.
    #[error("The server does not support version {version} of the '{protocol}' protocol.")]
    Version {
        /// Version requested by the client.
        version: i64,
        /// Protocol name, as sent by the client.
        protocol: String,
    },
    /// The protocol is binary, but the transport carries only text.
    #[error(
        "Cannot use the '{0}' protocol on the current transport. The transport does not support 'Binary' transfer format."
    )]
    TransferFormat(String),
    /// The handshake came too late or is too long.
    #[error("Handshake was canceled.")]
    Canceled,
    /// Not a valid handshake. The detail is for logs and detailed errors.
    #[error("An unexpected error occurred during connection handshake.")]
    Malformed {
        /// Problem with the handshake, for logs.
        detail: String,
    },
}

/// Handshake response of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandshakeResponse {
    /// Error text; `None` if accepted.
    pub error: Option<String>,
}

impl HandshakeRequest {
    /// Reads the handshake at the start of `buffer`. Returns the request and its size including the separator, or
    /// `None` if more bytes are needed. Fails if it is refused; [`Canceled`](HandshakeError::Canceled) if it exceeds
    /// `limit`.
    pub fn read_request(buffer: &[u8], limit: usize) -> Result<Option<(Self, usize)>, HandshakeError> {
        let read = Self::read_behind(buffer, 0, limit)?;
        read.map(|(request, used)| request.check_version().map(|()| (request, used))).transpose()
    }

    /// Like [`read_request`](Self::read_request), but accepts any version, and `buffer` has grown since no handshake
    /// ended in its first `searched` bytes. Fails as [`read_request`](Self::read_request) does.
    pub fn read_behind(buffer: &[u8], searched: usize, limit: usize) -> Result<Option<(Self, usize)>, HandshakeError> {
        read_with(buffer, searched, limit, Self::parse)
    }

    /// Encodes the request as the official client does.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let name = self.protocol.name();
        let mut text = format!("{{\"protocol\":\"{name}\",\"version\":{}}}", self.version).into_bytes();
        text.push(RECORD_SEPARATOR);
        text.into()
    }

    fn parse(text: &[u8]) -> Result<Self, HandshakeError> {
        let (mut protocol, mut version) = (None, None);
        for member in Members::from_text(text).map_err(malformed)? {
            let member = member.map_err(malformed)?;
            match &*member.key {
                "protocol" => protocol = Some(member.value),
                "version" => version = Some(member.value),
                _ => {}
            }
        }
        let protocol = protocol.ok_or_else(|| malformed("Missing required property 'protocol'."))?;
        let version = version.ok_or_else(|| malformed("Missing required property 'version'."))?;
        let protocol = members::text(protocol).ok_or_else(|| malformed("Expected 'protocol' to be of type String."))?;
        let version = members::integer(version).ok_or_else(|| malformed("Expected 'version' to be of type Number."))?;
        Self::choose(&protocol, version)
    }

    fn choose(name: &str, version: i64) -> Result<Self, HandshakeError> {
        let protocol = HubProtocol::from_name(name).ok_or_else(|| HandshakeError::Protocol(name.to_owned()))?;
        // The official server accepts any version up to its own, even nonexistent ones.
        let version = u32::try_from(version).unwrap_or(if version < 0 { 0 } else { u32::MAX });
        Ok(Self { protocol, version })
    }

    /// Checks that the version is supported. Fails if it is too high.
    pub fn check_version(&self) -> Result<(), HandshakeError> {
        let (version, protocol) = (i64::from(self.version), self.protocol.name().to_owned());
        if self.version > VERSION_MAX { Err(HandshakeError::Version { version, protocol }) } else { Ok(()) }
    }
}

impl HandshakeResponse {
    /// Encodes the response, including the separator: `{}` if accepted.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Some(error) = &self.error else {
            return Bytes::from_static(b"{}\x1e");
        };
        let mut text = BytesMut::with_capacity(error.len() + 16);
        text.put_slice(b"{\"error\":");
        json_encoding::put(error.as_str(), &mut text);
        text.put_slice(&[b'}', RECORD_SEPARATOR]);
        text.freeze()
    }

    /// Reads the response at the start of `buffer`, with its size. Returns `None` if more bytes are needed. Fails if it
    /// is not a handshake response.
    pub fn read_response(buffer: &[u8], limit: usize) -> Result<Option<(Self, usize)>, HandshakeError> {
        read_with(buffer, 0, limit, Self::parse)
    }

    fn parse(text: &[u8]) -> Result<Self, HandshakeError> {
        let mut error = None;
        for member in Members::from_text(text).map_err(malformed)? {
            let member = member.map_err(malformed)?;
            match &*member.key {
                "error" => error = Some(member.value).filter(|value| *value != b"null"),
                // Only hub messages have a type: the server skipped the handshake response.
                "type" => return Err(malformed("Expected a handshake response from the server.")),
                _ => {}
            }
        }
        let error =
            error.map(|value| members::text(value).ok_or_else(|| malformed("Expected 'error' to be of type String.")));
        Ok(Self { error: error.transpose()?.map(Into::into) })
    }
}

fn read_with<T>(
    buffer: &[u8],
    searched: usize,
    limit: usize,
    parse: impl FnOnce(&[u8]) -> Result<T, HandshakeError>,
) -> Result<Option<(T, usize)>, HandshakeError> {
    // A handshake is framed like a JSON message in any protocol.
    let frame = next_frame_behind(HubProtocol::Json, buffer, searched, limit).map_err(|_| HandshakeError::Canceled)?;
    let Some(frame) = frame else { return Ok(None) };
    let text = buffer.get(frame.body).unwrap_or_default();
    Ok(Some((parse(text)?, frame.length)))
}

fn malformed(detail: impl ToString) -> HandshakeError {
    HandshakeError::Malformed { detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1024;

    fn request(text: &str) -> Result<HandshakeRequest, HandshakeError> {
        let bytes = format!("{text}\u{1e}");
        HandshakeRequest::read_request(bytes.as_bytes(), LIMIT).map(|read| {
            let (request, length) = read.unwrap();
            assert_eq!(length, bytes.len());
            request
        })
    }

    fn detail(text: &str) -> String {
        match request(text) {
            Err(HandshakeError::Malformed { detail }) => detail,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_request_round_trips() {
        for protocol in HubProtocol::ALL {
            for version in [1, 2] {
                let request = HandshakeRequest { protocol, version };
                let bytes = request.encode();
                let length = bytes.len();
                assert_eq!(HandshakeRequest::read_request(&bytes, LIMIT), Ok(Some((request, length))));
            }
        }
    }

    #[test]
    fn unknown_properties_order_case_and_white_space_do_not_matter() {
        let expected = Ok(HandshakeRequest { protocol: HubProtocol::MessagePack, version: 1 });
        assert_eq!(request(r#" { "version" : 1, "more":[{}], "protocol" : "MessagePack" } "#), expected);
    }

    #[test]
    fn a_request_takes_only_its_own_bytes() {
        let bytes = b"{\"protocol\":\"json\",\"version\":1}\x1e{\"type\":6}\x1e";
        let (_, length) = HandshakeRequest::read_request(bytes, LIMIT).unwrap().unwrap();
        assert_eq!(&bytes[length..], b"{\"type\":6}\x1e");
    }

    #[test]
    fn a_request_in_pieces_waits_for_its_end() {
        let bytes = b"{\"protocol\":\"json\",\"version\":1}\x1e";
        for end in 0..bytes.len() {
            assert_eq!(HandshakeRequest::read_request(&bytes[..end], LIMIT), Ok(None));
        }
    }

    #[test]
    fn versions_up_to_ours_are_taken() {
        for (version, taken) in [(2, 2), (1, 1), (0, 0), (-3, 0)] {
            let request = request(&format!("{{\"protocol\":\"json\",\"version\":{version}}}")).unwrap();
            assert_eq!(request.version, taken);
        }
    }

    #[test]
    fn an_unknown_protocol_is_refused_by_its_name() {
        let error = request(r#"{"protocol":"xyz","version":1}"#).unwrap_err();
        assert_eq!(error.to_string(), "The protocol 'xyz' is not supported.");
    }

    #[test]
    fn a_version_above_ours_is_refused() {
        let error = request(r#"{"protocol":"json","version":9}"#).unwrap_err();
        assert_eq!(error.to_string(), "The server does not support version 9 of the 'json' protocol.");
    }

    #[test]
    fn a_request_that_is_too_long_is_canceled() {
        let error = HandshakeRequest::read_request(&[b' '; LIMIT], LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "Handshake was canceled.");
    }

    #[test]
    fn the_error_of_an_invalid_handshake_names_the_problem() {
        assert_eq!(detail("hello"), "Expected a JSON Object.");
        assert_eq!(detail(r#"{"protocol""#), "Error reading JSON.");
        assert_eq!(detail(r#"{"version":1}"#), "Missing required property 'protocol'.");
        assert_eq!(detail(r#"{"protocol":"json"}"#), "Missing required property 'version'.");
        assert_eq!(detail(r#"{"protocol":1,"version":1}"#), "Expected 'protocol' to be of type String.");
        assert_eq!(detail(r#"{"protocol":"json","version":"1"}"#), "Expected 'version' to be of type Number.");
        let text = request("hello").unwrap_err().to_string();
        assert_eq!(text, "An unexpected error occurred during connection handshake.");
    }

    #[test]
    fn an_answer_round_trips() {
        for error in [None, Some("The protocol 'x\"\u{1e}y' is not supported.".to_owned())] {
            let response = HandshakeResponse { error };
            let bytes = response.encode();
            let length = bytes.len();
            assert_eq!(HandshakeResponse::read_response(&bytes, LIMIT), Ok(Some((response, length))));
        }
    }

    #[test]
    fn a_hub_message_is_no_answer() {
        let error = HandshakeResponse::read_response(b"{\"type\":6}\x1e", LIMIT).unwrap_err();
        assert!(matches!(error, HandshakeError::Malformed { .. }));
    }
}
