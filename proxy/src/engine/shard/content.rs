//! Content of a client's transport.

use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::DataType;

use crate::ground::metrics::ClientProtocol;

/// Data type of a hub handshake in a service message.
pub(crate) const DATA_TYPE_HANDSHAKE: i64 = DataType::Handshake.number();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Hub(HubProtocol),
    /// Bytes of a raw endpoint, opaque to the proxy.
    Raw,
}

/// Form of a client's frames: the content, and whether they may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameForm {
    Json,
    MessagePack,
    BlazorPack,
    Raw,
    JsonDeflated,
    MessagePackDeflated,
    BlazorPackDeflated,
}

impl FrameForm {
    /// All forms, ordered by number.
    pub(crate) const ALL: [FrameForm; 7] = [
        FrameForm::Json,
        FrameForm::MessagePack,
        FrameForm::BlazorPack,
        FrameForm::Raw,
        FrameForm::JsonDeflated,
        FrameForm::MessagePackDeflated,
        FrameForm::BlazorPackDeflated,
    ];

    /// Form of a content. Raw endpoints have no compression.
    pub(crate) fn new(content: Content, is_compressed: bool) -> Self {
        let form = |plain, compressed| if is_compressed { compressed } else { plain };
        match content {
            Content::Raw => Self::Raw,
            Content::Hub(HubProtocol::Json) => form(Self::Json, Self::JsonDeflated),
            Content::Hub(HubProtocol::MessagePack) => form(Self::MessagePack, Self::MessagePackDeflated),
            Content::Hub(HubProtocol::BlazorPack) => form(Self::BlazorPack, Self::BlazorPackDeflated),
        }
    }

    #[inline]
    pub(crate) fn content(self) -> Content {
        match self {
            Self::Json | Self::JsonDeflated => Content::Hub(HubProtocol::Json),
            Self::MessagePack | Self::MessagePackDeflated => Content::Hub(HubProtocol::MessagePack),
            Self::BlazorPack | Self::BlazorPackDeflated => Content::Hub(HubProtocol::BlazorPack),
            Self::Raw => Content::Raw,
        }
    }

    /// Whether the client negotiated compression.
    #[inline]
    pub(crate) fn is_compressed(self) -> bool {
        matches!(self, Self::JsonDeflated | Self::MessagePackDeflated | Self::BlazorPackDeflated)
    }
}

impl Content {
    #[must_use]
    pub(crate) fn protocol(self) -> ClientProtocol {
        match self {
            Content::Hub(HubProtocol::Json) => ClientProtocol::Json,
            Content::Hub(HubProtocol::MessagePack) => ClientProtocol::MessagePack,
            Content::Hub(HubProtocol::BlazorPack) => ClientProtocol::BlazorPack,
            Content::Raw => ClientProtocol::Raw,
        }
    }
}
