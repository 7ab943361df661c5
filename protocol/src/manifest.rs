//! What an app server tells a proxy about its hubs, and the names of the places where it does.
//!
//! The proxy asks `GET /.trunkline/manifest`, then opens links at `GET /.trunkline/link?hub=NAME`; both
//! with `Authorization: Bearer` and a sealed [`LinkCredential`](crate::token::LinkCredential). Everything that a
//! session needs travels in headers of the upgrade, because Azure's SDK stumbles over unknown frame parts.

use serde::{Deserialize, Serialize};

use crate::hub::HubProtocol;
use crate::limits;

/// Below this, an app server's router is the fleet's own; a proxy never passes it through.
pub const PRIVATE_PREFIX: &str = "/.trunkline/";
/// Where the manifest is read.
pub const MANIFEST_PATH: &str = "/.trunkline/manifest";
/// Where links are opened.
pub const LINK_PATH: &str = "/.trunkline/link";

/// Header of every answer of a node: its name.
pub const NODE_HEADER: &str = "x-trunkline-node";
/// Header of a request that one node carries to another: a sealed [`ForwardMark`](crate::token::ForwardMark).
pub const FORWARD_HEADER: &str = "x-trunkline-forward";
/// How the names of all headers begin that only the fleet may set.
pub const PRIVATE_HEADER_PREFIX: &str = "x-trunkline-";
/// Header of a link's upgrade: which start of the node this is, so that a restarted one is known as new.
pub const BOOT_HEADER: &str = "x-trunkline-boot";
/// Header of a link's upgrade: the app server instance that is wanted; another one answers 409.
pub const INSTANCE_HEADER: &str = "x-trunkline-instance";
/// Header of a link's upgrade: the link's place in its pool, from 0.
pub const SLOT_HEADER: &str = "x-trunkline-slot";
/// Header of a link's upgrade: the id of the session that the link carries.
pub const SESSION_HEADER: &str = "x-trunkline-session";
/// Header of a link's upgrade: the last frame received in that session, 0 for a new one.
pub const RECEIVED_HEADER: &str = "x-trunkline-received";
/// Header of a link's upgrade: what this end can do, separated by commas.
pub const CAPABILITIES_HEADER: &str = "x-trunkline-capabilities";

/// How a client's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// WebSockets, text and binary.
    WebSockets,
    /// Server-sent events with POSTs, text only.
    ServerSentEvents,
    /// Long polling with POSTs, text and binary.
    LongPolling,
}

/// An app server, as its proxies see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Random id of this process: a restarted app server is another instance.
    pub instance: String,
    /// Name for people: logs, metrics, the observer page.
    pub name: String,
    /// Version of the SDK.
    pub version: String,
    /// The hubs, each with its own pool of links.
    pub hubs: Vec<HubManifest>,
}

/// One hub: where it is found, and its settings. A proxy's own flags are upper bounds to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubManifest {
    /// Name of the hub in links, logs and metrics.
    pub name: String,
    /// Path at which clients find it, matched without regard to case; begins with `/`.
    pub path: String,
    /// Names of the hub protocols it speaks.
    pub protocols: Vec<String>,
    /// Transports it allows, in the order in which clients shall try them.
    pub transports: Vec<Transport>,
    /// Largest message of a client, framing included, in bytes.
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
}

/// Whether a client must show who it is.
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
            protocols: HubProtocol::ALL.iter().map(|protocol| protocol.name().into()).collect(),
            transports: vec![Transport::WebSockets],
            message_max_bytes: limits::HUB_MESSAGE_MAX_BYTES,
            keep_alive_interval_ms: limits::KEEP_ALIVE_INTERVAL_MS,
            client_timeout_ms: limits::CLIENT_TIMEOUT_MS,
            handshake_timeout_ms: limits::HANDSHAKE_TIMEOUT_MS,
            detailed_errors: false,
            authentication: Authentication::Optional,
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
}
