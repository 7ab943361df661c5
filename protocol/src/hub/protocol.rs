//! Encodings of the hub protocol, chosen by each client in its handshake.

use bytes::Bytes;

/// An encoding of the hub protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HubProtocol {
    /// JSON texts, each ended by the record separator.
    Json,
    /// MessagePack arrays, each behind its length.
    MessagePack,
    /// MessagePack as circuits of Blazor speak it: framed alike, and under a name of its own.
    BlazorPack,
}

impl HubProtocol {
    /// Protocols that any hub may speak, the text one first. Blazor's is for its own hub alone.
    pub const ALL: [HubProtocol; 2] = [HubProtocol::Json, HubProtocol::MessagePack];

    /// Returns the name in handshakes and in the payloads of service messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HubProtocol::Json => "json",
            HubProtocol::MessagePack => "messagepack",
            HubProtocol::BlazorPack => "blazorpack",
        }
    }

    /// Whether its messages are bytes, and no text.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self != HubProtocol::Json
    }

    /// Finds the protocol of a name, without regard to case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain([Self::BlazorPack]);
        all.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// An encoded value: a JSON text, or the bytes of one MessagePack value. Cheap to clone.
///
/// Made and read by [`HubProtocol::payload`](super::HubProtocol::payload) and
/// [`HubProtocol::value`](super::HubProtocol::value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub(super) Bytes);

/// Error of a value that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PayloadError(pub(super) String);

impl Payload {
    /// Wraps a value that was encoded elsewhere; whether it is well-formed shows when it is read.
    #[must_use]
    pub fn new(encoded: Bytes) -> Self {
        Self(encoded)
    }

    /// Returns the encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_by_its_name_in_any_case() {
        assert_eq!(HubProtocol::from_name("JSON"), Some(HubProtocol::Json));
        assert_eq!(HubProtocol::from_name("messagePack"), Some(HubProtocol::MessagePack));
        assert_eq!(HubProtocol::from_name("blazorpack"), Some(HubProtocol::BlazorPack));
        assert_eq!(HubProtocol::from_name("xml"), None);
    }
}
