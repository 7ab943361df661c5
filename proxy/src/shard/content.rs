//! Content of a client's transport.

use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::DataType;

use crate::metrics::ClientProtocol;

/// Data type of a hub handshake in a service message.
pub(crate) const DATA_TYPE_HANDSHAKE: i64 = DataType::Handshake.number();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Hub(HubProtocol),
    /// Bytes of a raw endpoint, opaque to the proxy.
    Raw,
}

impl Content {
    /// All contents, ordered by number.
    pub(crate) const ALL: [Content; 4] = [
        Content::Hub(HubProtocol::Json),
        Content::Hub(HubProtocol::MessagePack),
        Content::Hub(HubProtocol::BlazorPack),
        Content::Raw,
    ];

    /// Number for indexing tables.
    #[must_use]
    pub(crate) fn number(self) -> usize {
        match self {
            Content::Hub(HubProtocol::Json) => 0,
            Content::Hub(HubProtocol::MessagePack) => 1,
            Content::Hub(HubProtocol::BlazorPack) => 2,
            Content::Raw => 3,
        }
    }

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
