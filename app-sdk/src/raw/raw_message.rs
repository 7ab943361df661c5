//! Messages of raw connections.

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::hub::Payload;
use trunkline_protocol::service::{ConnectionData, RawKind};

use crate::connection::UploadItem;

/// Cost of a message in addition to its bytes, so that empty messages are not free.
pub(crate) const MESSAGE_BYTES: usize = size_of::<RawMessage>();

/// A message of a raw connection. Over WebSockets, one WebSocket message; over other transports, an arbitrary part of
/// the stream. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawMessage {
    /// A UTF-8 text message.
    Text(Utf8Bytes),
    /// A binary message with any bytes.
    Binary(Bytes),
}

impl RawMessage {
    /// Bytes of the message, text or binary.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RawMessage::Text(text) => text.as_bytes(),
            RawMessage::Binary(bytes) => bytes,
        }
    }

    /// Text of the message; `None` if it is binary.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            RawMessage::Text(text) => Some(text),
            RawMessage::Binary(_) => None,
        }
    }

    fn new(kind: RawKind, bytes: Bytes) -> Self {
        match kind {
            // Proxies do not forward invalid UTF-8 as text; if one did, the message is treated as binary.
            RawKind::Text => Utf8Bytes::try_from(bytes.clone()).map_or(Self::Binary(bytes), Self::Text),
            RawKind::Binary => Self::Binary(bytes),
        }
    }

    /// Converts data from a client to an item of the upload that the handler reads.
    pub(crate) fn to_item(data: ConnectionData) -> UploadItem {
        let (raw, bytes) = (Some(RawKind::from_data_type(data.data_type)), MESSAGE_BYTES + data.payload.len());
        UploadItem { payload: Payload::new(data.payload), raw, bytes }
    }

    pub(super) fn from_item(item: &UploadItem) -> Self {
        Self::new(item.raw.unwrap_or(RawKind::Binary), item.payload.as_bytes().clone())
    }

    pub(super) fn kind(&self) -> RawKind {
        match self {
            RawMessage::Text(_) => RawKind::Text,
            RawMessage::Binary(_) => RawKind::Binary,
        }
    }
}

impl From<&str> for RawMessage {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for RawMessage {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Utf8Bytes> for RawMessage {
    fn from(text: Utf8Bytes) -> Self {
        Self::Text(text)
    }
}

impl From<ByteString> for RawMessage {
    fn from(text: ByteString) -> Self {
        Self::new(RawKind::Text, text.into_bytes())
    }
}

impl From<Bytes> for RawMessage {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for RawMessage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<&'static [u8]> for RawMessage {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Binary(Bytes::from_static(bytes))
    }
}
