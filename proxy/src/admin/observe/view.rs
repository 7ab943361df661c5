//! The observer's numbers as nodes tell them to pages, terminals and each other, in JSON.
//!
//! All nodes of a fleet may be of different versions for a while: what is missing is taken for nothing.

use serde::{Deserialize, Serialize};

/// All nodes that are known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Fleet {
    /// When this was gathered, in milliseconds since 1970.
    pub at_ms: u64,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// Those that did not answer.
    pub unreachable: Vec<Unreachable>,
}

/// A node that did not answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Unreachable {
    /// Where it was asked.
    pub url: String,
    pub problem: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Node {
    pub name: String,
    /// Tells this start of it from all others.
    pub instance: String,
    pub version: String,
    /// Where clients and other nodes reach it.
    pub address: String,
    /// How long it runs, in seconds.
    pub uptime_s: u64,
    /// When this was gathered, in milliseconds since 1970.
    pub at_ms: u64,
    /// Threads that serve clients.
    pub shards: u64,
    /// Why it takes no clients in; empty when it does.
    pub not_ready: Vec<String>,
    pub clients: u64,
    /// Sockets of clients, those that come and go included.
    pub sockets: u64,
    /// Groups with members, by shard and summed.
    pub groups: u64,
    /// Users with connections, by shard and summed.
    pub users: u64,
    /// Bytes that wait because clients read no faster.
    pub outbox_bytes: u64,
    pub process: Process,
    pub host: Host,
    /// What happens in a second; `None` when nobody has looked a moment before.
    pub rates: Option<Rates>,
    pub hubs: Vec<HubView>,
    /// Its links, by hub and app server.
    pub links: Vec<LinkView>,
    /// Its clients one by one, where they are few.
    pub individuals: Option<Vec<Client>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Process {
    /// How much of one core it took, in percent; `None` when nobody has looked a moment before.
    pub cpu_percent: Option<f64>,
    /// Its memory, in bytes.
    pub memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Host {
    /// How much of all its cores is taken, in percent.
    pub cpu_percent: Option<f64>,
    /// How many these are.
    pub cores: u64,
    /// Its memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What of it is taken.
    pub memory_used_bytes: Option<u64>,
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rates {
    pub messages_up: f64,
    /// Frames given to clients.
    pub deliveries: f64,
    /// Bytes towards app servers.
    pub bytes_up: f64,
    /// Bytes from app servers.
    pub bytes_down: f64,
    pub opened: f64,
    pub closed: f64,
}

/// A hub at a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HubView {
    pub name: String,
    pub path: String,
    pub clients: u64,
    /// Those without an app server.
    pub homeless: u64,
    /// Its clients by what they travel by.
    pub transports: Vec<(String, u64)>,
    /// Its clients by hub protocol.
    pub protocols: Vec<(String, u64)>,
}

/// The links of a node for one hub to one app server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LinkView {
    pub hub: String,
    /// Which start of the app server.
    pub app: String,
    pub app_name: String,
    pub address: String,
    /// It is about to stop.
    pub is_leaving: bool,
    /// Links that are open.
    pub open: u64,
    /// Links that wait to be resumed.
    pub resuming: u64,
    /// Links that are to be dialled.
    pub down: u64,
    /// Clients at home there.
    pub clients: u64,
}

/// A client connection, as lists have it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Client {
    /// Its id, or the first 22 characters of one that is a token.
    pub id: String,
    pub node: String,
    pub hub: String,
    /// Which start of which app server; empty while it has none.
    pub app: String,
    /// The name of that.
    pub app_name: String,
    pub user: Option<String>,
    pub address: Option<String>,
    /// What it travels by.
    pub transport: String,
    /// Its hub protocol, or `raw`.
    pub protocol: String,
    /// `opening`, `open`, `paused` (it is not read for now), `held` (it has no app server).
    pub state: String,
    /// How long it is here, in seconds.
    pub age_s: u32,
}

/// All that is told of a client connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientDetails {
    #[serde(flatten)]
    pub client: Client,
    /// As what it shows itself.
    pub user_agent: Option<String>,
    /// The groups that it is in, at most 200.
    pub groups: Vec<String>,
    /// How many these are.
    pub group_count: u64,
    /// What waits for it, in bytes.
    pub outbox_bytes: u64,
    /// Its calls that are not answered.
    pub pending_calls: u64,
    /// How long ago something came from it, in seconds.
    pub heard_s: u32,
    /// How long ago something was sent to it, in seconds.
    pub sent_s: u32,
}
