//! Manifest of an app server: its hubs and their settings.
//!
//! The proxy asks `GET /.trunkline/manifest`, then opens links at `GET /.trunkline/link?hub=NAME`; both
//! inside a channel, in which each end has proved the fleet's key to the other. Everything that a
//! session needs travels in headers of the upgrade, because Azure's SDK stumbles over unknown frame parts.

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
    /// All of them, in the order in which the official server offers them.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];

    /// Its name, as negotiate spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSockets => "WebSockets",
            Self::ServerSentEvents => "ServerSentEvents",
            Self::LongPolling => "LongPolling",
        }
    }

    /// The transport of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.name() == name)
    }
}

/// Manifest of an app server: its instance and its hubs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Random id of this process: a restarted app server is another instance.
    pub instance: String,
    /// Name for people: logs, metrics, the observer page.
    pub name: String,
    /// Version of the SDK.
    pub version: String,
    /// The hubs and raw endpoints, each with its own pool of links.
    pub hubs: Vec<HubManifest>,
}

/// Hub or raw endpoint: its path and its settings. A proxy's own flags are upper bounds to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubManifest {
    /// Name of the hub in links, logs and metrics.
    pub name: String,
    /// Path at which clients find it, matched without regard to case; begins with `/`.
    pub path: String,
    /// Protocol of its clients; a hub where it is not said.
    #[serde(default)]
    pub kind: EndpointKind,
    /// Names of the hub protocols it speaks; none for a raw endpoint.
    pub protocols: Vec<String>,
    /// Transports it allows, in the order in which clients shall try them.
    pub transports: Vec<Transport>,
    /// WebSocket sub-protocols (`Sec-WebSocket-Protocol`) that it has: the first one that a client asks for is chosen.
    #[serde(default)]
    pub sub_protocols: Vec<String>,
    /// Largest message of a client, framing included, in bytes; of a raw endpoint the largest WebSocket message.
    pub message_max_bytes: usize,
    /// The proxy pings a client when it has sent it nothing for this long.
    pub keep_alive_interval_ms: u64,
    /// A client that has pinged once is closed when it is silent for this long.
    pub client_timeout_ms: u64,
    /// How long a client may take for its hub handshake.
    pub handshake_timeout_ms: u64,
    /// Whether clients are told the details of errors.
    pub detailed_errors: bool,
    /// Whether a client must show a valid token.
    pub authentication: Authentication,
    /// Treatment of a client that reads too slowly.
    #[serde(default)]
    pub slow_clients: SlowClients,
    /// Whether a client is closed, to connect again, when the token ends with which it came.
    #[serde(default)]
    pub close_on_token_expiry: bool,
    /// Whether a client may show a newer token for its open connection.
    #[serde(default)]
    pub refreshes_authentication: bool,
    /// Whether the app is asked about each client that negotiates, or connects without.
    #[serde(default)]
    pub asks_app: bool,
    /// Bytes that are kept for each client that may come back to its connection after its socket has ended, until it
    /// has acknowledged them; `None` where no client may.
    #[serde(default)]
    pub stateful_reconnect_buffer_bytes: Option<usize>,
    /// Whether clients of a raw endpoint go on at another app server when theirs stops; those of a hub always do.
    #[serde(default)]
    pub is_movable: bool,
    /// Whether the app server gives a client that begins anew what its lost connection had: it answers queries for such
    /// connections, and is told of the groups that others have them join.
    #[serde(default)]
    pub restores_clients: bool,
    /// Changes of which proxies tell the app server.
    #[serde(default)]
    pub presence: PresenceScope,
    /// Exclusive tasks that the app server stands for; `None` where it has none.
    #[serde(default)]
    pub exclusive_tasks: Option<ExclusiveTasks>,
}

/// Tasks of which one app server runs each: those that stand for one choose by their age, so it stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExclusiveTasks {
    /// Milliseconds since 1970 at which the app server began, by its own clock.
    pub since_ms: i64,
    /// Names of the tasks.
    pub names: Vec<String>,
}

/// Changes of which an app server wants to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceScope {
    /// Users who come and go.
    pub users: bool,
    /// Connections that join groups and leave them.
    pub groups: bool,
}

impl PresenceScope {
    /// Whether anything is wanted.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.users || self.groups
    }
}

/// Treatment of a client whose outbox is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SlowClients {
    /// The client connection is closed.
    #[default]
    Close,
    /// Sends to many (all, groups, users) are dropped, whole and oldest first, until there is room. Results and sends
    /// to single connections never are: a client is still closed when there is no room for those.
    Drop,
}

/// Protocol that clients of an endpoint speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointKind {
    /// A hub protocol, after its handshake.
    #[default]
    Hub,
    /// No protocol: texts and bytes both ways, open at once.
    Raw,
}

/// Whether a client must authenticate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authentication {
    /// A token is checked where there is one.
    #[default]
    Optional,
    /// 401 without a valid token.
    Required,
}

impl HubManifest {
    /// A hub with the official server's defaults.
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
            restores_clients: false,
            presence: PresenceScope::default(),
            exclusive_tasks: None,
        }
    }

    /// A raw endpoint: no hub protocol, and nothing else that is not for it.
    #[must_use]
    pub fn raw(name: &str, path: &str) -> Self {
        Self {
            kind: EndpointKind::Raw,
            protocols: Vec::new(),
            message_max_bytes: limits::RAW_MESSAGE_MAX_BYTES,
            ..Self::new(name, path)
        }
    }

    /// Whether the hub speaks this protocol.
    #[must_use]
    pub fn speaks(&self, protocol: HubProtocol) -> bool {
        self.protocols.iter().any(|name| name.eq_ignore_ascii_case(protocol.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_json_and_ignores_what_a_newer_one_adds() {
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
    fn an_endpoint_that_does_not_say_what_it_is_is_a_hub() {
        let mut json = serde_json::to_value(HubManifest::raw("echo", "/echo")).unwrap();
        assert_eq!(json["kind"], "raw");
        json.as_object_mut().unwrap().remove("kind");
        assert_eq!(serde_json::from_value::<HubManifest>(json).unwrap().kind, EndpointKind::Hub);
    }
}
