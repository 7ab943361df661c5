//! Encoded value: an argument, an item or a result, in the hub protocol of its connection.

use bytes::Bytes;

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
