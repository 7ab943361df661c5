//! Encodings of the hub protocol, chosen by each client in its handshake.

use bytes::Bytes;

/// Encoding of the hub protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HubProtocol {
    /// JSON texts, each terminated by the record separator.
    Json,
    /// MessagePack arrays, each with a length prefix.
    MessagePack,
    /// MessagePack of Blazor circuits, with equal framing but its own name.
    BlazorPack,
}

impl HubProtocol {
    /// Protocols available to any hub, text first. Blazor's is only for its own hub.
    pub const ALL: [HubProtocol; 2] = [HubProtocol::Json, HubProtocol::MessagePack];

    /// Name in handshakes and in the payloads of service messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HubProtocol::Json => "json",
            HubProtocol::MessagePack => "messagepack",
            HubProtocol::BlazorPack => "blazorpack",
        }
    }

    /// Whether messages are binary rather than text.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self != HubProtocol::Json
    }

    /// Looks up a protocol by name, ignoring case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain([Self::BlazorPack]);
        all.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// Encoded value: a JSON text or one MessagePack value. Cheap to clone.
///
/// Created by [`HubProtocol::payload`](super::HubProtocol::payload) and read by
/// [`HubProtocol::value`](super::HubProtocol::value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub(super) Bytes);

/// Error encoding or decoding a value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PayloadError(pub(super) String);

impl Payload {
    /// Wraps an encoded value, which is validated only when read.
    #[must_use]
    pub fn new(encoded: Bytes) -> Self {
        Self(encoded)
    }

    /// The encoded bytes, with shared memory.
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
