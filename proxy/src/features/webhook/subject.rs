//! Subjects of events over all nodes: entries of the logs and tables that nodes exchange.

use std::fmt::Debug;
use std::hash::Hash;

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a subject in a batch in addition to its names.
const OVERHEAD_BYTES: usize = 64;

/// Subject of events over all nodes.
pub(crate) trait Subject:
    Debug + Clone + Default + Eq + Hash + Ord + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Path at which nodes receive the batches of other nodes. Nodes without this kind of subjects answer 404.
    const PATH: &'static str;

    /// Flag that switches the events on.
    const FLAG: &'static str;

    /// Only the loss of a node causes an event, because each node reports the other changes of its clients itself.
    const ONLY_LOSSES: bool;

    fn hub(&self) -> &ByteString;

    /// Name by which the node that reports is chosen.
    fn name(&self) -> &str;

    /// Bytes in a batch.
    fn bytes(&self) -> usize;
}

/// User of a hub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HubUser {
    pub(crate) hub: ByteString,
    pub(crate) user: ByteString,
}

impl Subject for HubUser {
    const PATH: &'static str = "/api/webhooks/presence";
    const FLAG: &'static str = "--webhook-presence";
    const ONLY_LOSSES: bool = false;

    fn hub(&self) -> &ByteString {
        &self.hub
    }

    fn name(&self) -> &str {
        &self.user
    }

    fn bytes(&self) -> usize {
        self.hub.len() + self.user.len() + OVERHEAD_BYTES
    }
}

/// Client connection to a hub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HubConnection {
    pub(crate) hub: ByteString,
    #[serde(rename = "connection")]
    pub(crate) id: ByteString,
    /// Empty for an anonymous client.
    pub(crate) user: ByteString,
}

impl Subject for HubConnection {
    const PATH: &'static str = "/api/webhooks/connections";
    const FLAG: &'static str = "--webhook-lost-clients";
    const ONLY_LOSSES: bool = true;

    fn hub(&self) -> &ByteString {
        &self.hub
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.hub.len() + self.id.len() + self.user.len() + OVERHEAD_BYTES
    }
}
