//! Manifest of an app server: its hubs and their settings.
//!
//! The proxy requests `GET /.trunkline/manifest`, then opens links at `GET /.trunkline/link?hub=NAME`, both inside a
//! channel that authenticates each end with the fleet's key.

use serde::{Deserialize, Serialize};

use crate::hub::HubProtocol;
use crate::limits;

pub use crate::wire::{
    BOOT_HEADER, CAPABILITIES_HEADER, CAUSE_HEADER, CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, ENDED_ERROR_HEADER,
    ENDED_HEADER, FORWARD_HEADER, IF_IDLE_HEADER, INSTANCE_HEADER, ITEMS_HEADER, LINK_PATH, MANIFEST_PATH,
    MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER, NEGOTIATE_PATH, NODE_HEADER, PRIVATE_HEADER_PREFIX, PRIVATE_PREFIX,
    RECEIVED_HEADER, REMOTE_HEADER, SESSION_HEADER, SLOT_HEADER, TRANSPORT_HEADER, USER_HEADER, USER_ID_CLAIM,
};

/// Transport of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// WebSockets, text and binary.
    WebSockets,
    /// Server-sent events with POSTs, text only.
    ServerSentEvents,
    /// Long polling with POSTs, text and binary.
    LongPolling,
}

impl Transport {
    /// All transports in the official server's order.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];

    /// Name in negotiate responses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSockets => "WebSockets",
            Self::ServerSentEvents => "ServerSentEvents",
            Self::LongPolling => "LongPolling",
        }
    }

    /// Looks up a transport by name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.name() == name)
    }
}

/// Manifest of an app server: its instance and its hubs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Random id of this process. A restarted app server is a new instance.
    pub instance: String,
    /// Display name in logs, metrics and the observer page.
    pub name: String,
    /// Version of the SDK.
    pub version: String,
    /// Hubs and raw endpoints, each with its own pool of links.
    pub hubs: Vec<HubManifest>,
}

/// Hub or raw endpoint: its path and settings. The proxy's flags are upper bounds of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubManifest {
    /// Hub name in links, logs and metrics.
    pub name: String,
    /// Path for clients, matched case-insensitively; begins with `/`.
    pub path: String,
    /// Protocol of its clients; a hub by default.
    #[serde(default)]
    pub kind: EndpointKind,
    /// Names of the supported hub protocols; empty for a raw endpoint.
    pub protocols: Vec<String>,
    /// Allowed transports in order of preference.
    pub transports: Vec<Transport>,
    /// Supported WebSocket sub-protocols (`Sec-WebSocket-Protocol`). The client's first match is chosen.
    #[serde(default)]
    pub sub_protocols: Vec<String>,
    /// Maximum size of a client message including framing, in bytes; for a raw endpoint, of a WebSocket message.
    pub message_max_bytes: usize,
    /// The proxy pings a client after sending nothing for this long.
    pub keep_alive_interval_ms: u64,
    /// A client that has pinged once is closed after being silent for this long.
    pub client_timeout_ms: u64,
    /// Time limit for a client's hub handshake.
    pub handshake_timeout_ms: u64,
    /// Whether clients receive error details.
    pub detailed_errors: bool,
    /// Whether clients need a valid token.
    pub authentication: Authentication,
    /// Handling of clients that read too slowly.
    #[serde(default)]
    pub slow_clients: SlowClients,
    /// Whether a client is closed, to reconnect, when its token expires.
    #[serde(default)]
    pub close_on_token_expiry: bool,
    /// Whether a client may present a newer token for its open connection.
    #[serde(default)]
    pub refreshes_authentication: bool,
    /// Whether the app decides about each client that negotiates, or connects without negotiating.
    #[serde(default)]
    pub asks_app: bool,
    /// Bytes kept per client for stateful reconnect until it acknowledges them; `None` if the hub does not support it.
    #[serde(default)]
    pub stateful_reconnect_buffer_bytes: Option<usize>,
    /// Whether clients of a raw endpoint continue at another app server when theirs stops. Hub clients always do.
    #[serde(default)]
    pub is_movable: bool,
    /// Presence changes that proxies report to the app server.
    #[serde(default)]
    pub presence: PresenceScope,
    /// Whether proxies with `--compress` compress messages of the hub's clients.
    #[serde(default = "compressed_by_default")]
    pub compress: bool,
    /// Recorded groups and users; the first match counts. Others are not recorded.
    #[serde(default)]
    pub history: Vec<RecordedNames>,
}

/// Recorded groups or users of a hub, and the size of each record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedNames {
    /// Whether the pattern is of user ids rather than of group names.
    pub of_users: bool,
    /// Pattern of the names.
    pub names: String,
    /// Number of newest messages that are kept.
    pub messages: u32,
    /// Time for which a message is kept.
    pub age_ms: u64,
}

/// App servers of older versions have not decided, so the proxy's flag decides.
fn compressed_by_default() -> bool {
    true
}

/// Presence changes reported to an app server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceScope {
    /// Users who connect and disconnect.
    pub users: bool,
    /// Connections that join and leave groups.
    pub groups: bool,
}

impl PresenceScope {
    /// Whether any changes are reported.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.users || self.groups
    }
}

/// Handling of a client with a full outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SlowClients {
    /// The client connection is closed when the client takes nothing for the timeout.
    #[default]
    Close,
    /// Sends to many clients (all, groups, users) are dropped whole, oldest first, until there is room. Results and
    /// sends to single connections are never dropped: if they don't fit and
    /// the client takes nothing for the timeout, the client is closed.
    Drop,
}

/// Protocol of an endpoint's clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointKind {
    /// A hub protocol, after its handshake.
    #[default]
    Hub,
    /// No hub protocol: text and binary messages, open immediately.
    Raw,
}

/// Whether a client must authenticate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authentication {
    /// Tokens are checked if present.
    #[default]
    Optional,
    /// Requests without a valid token get 401.
    Required,
}

impl HubManifest {
    /// Creates a hub with the official server's defaults.
    #[must_use]
    pub fn new(name: &str, path: &str) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            kind: EndpointKind::Hub,
            protocols: HubProtocol::ALL.iter().map(|protocol| protocol.name().into()).collect(),
            transports: Transport::ALL.to_vec(),
            sub_protocols: Vec::new(),
            message_max_bytes: limits::HUB_MESSAGE_MAX_BYTES,
            keep_alive_interval_ms: limits::KEEP_ALIVE_INTERVAL_MS,
            client_timeout_ms: limits::CLIENT_TIMEOUT_MS,
            handshake_timeout_ms: limits::HANDSHAKE_TIMEOUT_MS,
            detailed_errors: false,
            authentication: Authentication::Optional,
            slow_clients: SlowClients::Close,
            close_on_token_expiry: false,
            refreshes_authentication: false,
            asks_app: false,
            stateful_reconnect_buffer_bytes: None,
            is_movable: false,
            presence: PresenceScope::default(),
            compress: true,
            history: Vec::new(),
        }
    }

    /// Creates a raw endpoint, without hub protocols and other hub features.
    #[must_use]
    pub fn raw(name: &str, path: &str) -> Self {
        Self {
            kind: EndpointKind::Raw,
            protocols: Vec::new(),
            message_max_bytes: limits::RAW_MESSAGE_MAX_BYTES,
            ..Self::new(name, path)
        }
    }

    /// Whether the hub supports this protocol.
    #[must_use]
    pub fn speaks(&self, protocol: HubProtocol) -> bool {
        self.protocols.iter().any(|name| name.eq_ignore_ascii_case(protocol.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_round_trips_and_ignores_newer_fields() {
        let manifest = Manifest {
            instance: "i".into(),
            name: "app".into(),
            version: "0.1.0".into(),
            hubs: vec![HubManifest::new("chat", "/chat")],
        };
        let mut json = serde_json::to_value(&manifest).unwrap();
        json["somethingNew"] = 1.into();
        assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
    }

    #[test]
    fn an_endpoint_without_a_kind_is_a_hub() {
        let mut json = serde_json::to_value(HubManifest::raw("echo", "/echo")).unwrap();
        assert_eq!(json["kind"], "raw");
        json.as_object_mut().unwrap().remove("kind");
        assert_eq!(serde_json::from_value::<HubManifest>(json).unwrap().kind, EndpointKind::Hub);
    }
}
