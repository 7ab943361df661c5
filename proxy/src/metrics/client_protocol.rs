//! Protocols of client connections.

use serde::{Deserialize, Serialize};

/// Protocol of a client connection, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClientProtocol {
    /// The JSON hub protocol.
    Json,
    /// The MessagePack hub protocol.
    MessagePack,
    /// The protocol of Blazor's circuits.
    BlazorPack,
    /// No hub protocol: a raw endpoint.
    Raw,
}

impl ClientProtocol {
    /// All protocols with their labels.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Json, "json"),
        (Self::MessagePack, "messagepack"),
        (Self::BlazorPack, "blazorpack"),
        (Self::Raw, "raw"),
    ];

    /// Returns the label in metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        Self::ALL.iter().find(|(protocol, _)| *protocol == self).map_or("unknown", |(_, label)| label)
    }
}
