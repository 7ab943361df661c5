//! Bodies of negotiate requests, app servers' decisions, and manifests.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::Manifest;
use trunkline_protocol::negotiate::{Decision, NegotiateAnswer, NegotiateVersion};

/// Reads what decides a negotiation: the version requested by a client, an app server's decision, and its manifest.
pub fn negotiate_bodies(data: &[u8]) {
    json::<Decision>(data);
    if let Some(manifest) = json::<Manifest>(data) {
        for hub in &manifest.hubs {
            for protocol in HubProtocol::ALL {
                assert!(!hub.protocols.is_empty() || !hub.speaks(protocol), "a hub speaks a protocol that it has not");
            }
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match NegotiateVersion::from_query(Some(text)) {
        Ok(version) => assert_eq!(version == NegotiateVersion::Zero, text.trim().parse() == Ok(0)),
        Err(error) => {
            let body = serde_json::to_vec(&NegotiateAnswer::error(error)).expect("an answer can be written");
            serde_json::from_slice::<serde_json::Value>(&body).expect("an answer is JSON");
        }
    }
}

/// Reads a JSON body; an accepted one must survive a round trip.
fn json<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("what was written can be read"), value);
    Some(value)
}
