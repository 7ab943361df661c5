//! Snapshots in JSON, for pages, terminals and other nodes.
//!
//! Nodes may run different versions for a while, so missing fields take their defaults.

use serde::{Deserialize, Serialize};

use super::condition_list::ConditionSnapshot;
use super::rule_snapshot::RuleSnapshot;
use crate::engine::shard::Shared;
use crate::engine::upstream::{AppServerId, HubIndex};
use crate::features::inspection::ClientRow;
use crate::fleet::MemberState;

/// Snapshot of all known nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetSnapshot {
    /// Time of the snapshot, in milliseconds since 1970.
    pub at_ms: u64,
    /// All answering nodes, sorted by name.
    pub nodes: Vec<NodeSnapshot>,
    /// Whether all nodes see the same members.
    pub agree: bool,
    /// Addresses without a node.
    pub unreachable: Vec<UnreachablePeer>,
    /// Nodes without a timely answer, shown with their last data.
    pub missing: Vec<String>,
}

impl Default for FleetSnapshot {
    /// No nodes, in agreement.
    fn default() -> Self {
        Self { at_ms: 0, nodes: Vec::new(), agree: true, unreachable: Vec::new(), missing: Vec::new() }
    }
}

/// `--peers` address without a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnreachablePeer {
    /// Address of the admin port.
    pub url: String,
    /// Reason for the missing answer.
    pub problem: String,
}

/// Snapshot of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSnapshot {
    /// Name of the node.
    pub name: String,
    /// Boot id of the node.
    pub instance: String,
    /// Version of the program.
    pub version: String,
    /// State as seen by the answering node.
    pub state: MemberState,
    /// Delay of the data: a round trip, or the time an answer is overdue.
    pub lag_ms: u64,
    /// Address for other nodes.
    pub address: String,
    /// Time since the start, in seconds.
    pub uptime_s: u64,
    /// Time of the snapshot, in milliseconds since 1970.
    pub at_ms: u64,
    /// Age of these numbers at the time of the fleet's snapshot; `None` if the node has reported none.
    pub age_ms: Option<u64>,
    /// Number of threads that serve clients.
    pub shards: u64,
    /// Reasons for refusing clients; empty if ready.
    pub not_ready: Vec<String>,
    /// Warnings of a ready node, for people.
    pub warnings: Vec<String>,
    /// Active conditions of the node.
    pub conditions: Vec<ConditionSnapshot>,
    /// Number of open client connections.
    pub clients: u64,
    /// Client connections opened since the start.
    pub opened: u64,
    /// Client sockets, including opening and closing ones.
    pub sockets: u64,
    /// Groups with members, summed over the shards.
    pub groups: u64,
    /// Users with connections, summed over the shards.
    pub users: u64,
    /// Disconnected clients that may resume at any node.
    pub away: u64,
    /// Running or recently finished rebalance coordinated by the node.
    pub rebalance: Option<RebalanceReport>,
    /// Bytes in the outboxes of clients.
    pub outbox_bytes: u64,
    /// Store of revocations and memberships; `None` without one.
    pub store: Option<StoreSnapshot>,
    /// CPU and memory of the process.
    pub process: ProcessUsage,
    /// CPU and memory of the machine.
    pub host: HostUsage,
    /// `None` without a recent snapshot to compare with.
    pub rates: Option<Rates>,
    /// Hubs served by the node.
    pub hubs: Vec<HubSnapshot>,
    /// Pools of links, by hub and app server.
    pub links: Vec<PoolSnapshot>,
    /// Active rules of the operator.
    pub rules: Vec<RuleSnapshot>,
    /// Individual client connections, if there are few.
    pub individuals: Option<Vec<ClientSummary>>,
}

/// State of a node's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreSnapshot {
    /// Whether the store can be used.
    pub is_connected: bool,
    /// Revocations and memberships that the store doesn't have yet.
    pub unwritten: u64,
}

/// Progress of a rebalance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebalanceReport {
    /// Random id; empty if there was no rebalance.
    pub id: String,
    /// Node that coordinates the rebalance.
    pub node: String,
    /// Goal: `mean`, `percent` or `node`.
    pub to: String,
    /// Number of clients that should leave their nodes.
    pub planned: u64,
    /// Net number of clients that have left; a client that returns to its node is not counted.
    pub moved: u64,
    /// Clients shed without progress towards the goal.
    pub failed: u64,
    /// State of the rebalance.
    pub state: RebalanceState,
    /// Reason for missing the goal.
    pub reason: Option<String>,
    /// Start time in milliseconds since 1970.
    pub begun_ms: u64,
    /// Nodes without current numbers at planning time.
    pub missing: Vec<MissingCount>,
}

/// Node without a current client number when a rebalance was planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissingCount {
    /// Name of the node, or `--peers` address without a node.
    pub node: String,
    /// Reason, worded to follow the name.
    pub problem: String,
    /// Age of the number used instead, in milliseconds; `None` if the node was omitted.
    pub age_ms: Option<u64>,
}

/// State of a rebalance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebalanceState {
    /// No rebalance has run at the node.
    #[default]
    Idle,
    /// Planned only, by a dry run.
    Planned,
    /// Clients are being moved.
    Running,
    /// The goal has been reached.
    Done,
    /// Ended for lack of progress.
    Stalled,
    /// Stopped by an operator or by the end of its node.
    Stopped,
}

impl RebalanceState {
    /// Label in JSON and for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Done => "done",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
        }
    }
}

/// CPU and memory of the process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessUsage {
    /// Percentage of one core; `None` without a recent snapshot.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the process.
    pub memory_bytes: Option<u64>,
}

/// CPU and memory of the machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostUsage {
    /// Percentage of all cores.
    pub cpu_percent: Option<f64>,
    pub cores: u64,
    pub memory_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
}

/// Events and bytes per second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rates {
    /// Messages read from clients.
    pub messages_up: f64,
    /// Messages written to clients.
    pub deliveries: f64,
    /// Bytes sent to app servers.
    pub bytes_up: f64,
    /// Bytes received from app servers.
    pub bytes_down: f64,
    /// Client connections that opened.
    pub opened: f64,
    /// Client connections that closed.
    pub closed: f64,
}

/// Snapshot of a hub on one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HubSnapshot {
    /// Name of the hub.
    pub name: String,
    /// Path of the hub.
    pub path: String,
    /// Open client connections of the hub.
    pub clients: u64,
    /// Clients waiting for an app server.
    pub homeless: u64,
    /// Number of clients by transport.
    pub transports: Vec<(String, u64)>,
    /// Number of clients by hub protocol.
    pub protocols: Vec<(String, u64)>,
    /// Bytes to clients with compression since the start, before it and as sent.
    pub compression_bytes: [u64; 2],
}

/// Snapshot of a pool: the links from one node to one app server for one hub.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSnapshot {
    /// Name of the hub.
    pub hub: String,
    /// Instance id of the app server.
    pub app: String,
    /// Name of the app server.
    pub app_name: String,
    /// Address of the app server.
    pub address: String,
    /// Name of the group.
    pub group: String,
    /// Whether the app server is a mirror, which gets copies only.
    pub is_mirror: bool,
    /// Whether the app server is shutting down.
    pub is_leaving: bool,
    /// Number of open links.
    pub open: u64,
    /// Links waiting to be resumed.
    pub resuming: u64,
    /// Links that need to be dialled.
    pub down: u64,
    /// Clients with their home link in this pool.
    pub clients: u64,
    /// Back end of a webhook, which has requests instead of links; `None` for app servers.
    pub webhook: Option<WebhookSnapshot>,
}

/// Snapshot of a webhook's back end, as seen by one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookSnapshot {
    /// Requests since the start of the node, each attempt counted.
    pub requests: u64,
    /// Requests without a valid answer.
    pub failures: u64,
    /// Number of requests in flight.
    pub in_flight: u64,
    /// Time until the end of an answer, smoothed over the last requests.
    pub latency_us: u64,
    /// First failure since the last valid answer, in milliseconds since 1970; `None` while the back end answers.
    pub failing_since_ms: Option<u64>,
    /// Latest problem, with the event and the URL.
    pub problem: Option<String>,
}

/// Client connection in a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientSummary {
    /// Connection id, or its first 22 characters if it is a token.
    pub id: String,
    pub node: String,
    pub hub: String,
    /// Instance id of the app server; empty while unassigned.
    pub app: String,
    pub app_name: String,
    pub user: Option<String>,
    pub address: Option<String>,
    pub transport: String,
    /// Hub protocol, or `raw`.
    pub protocol: String,
    /// Its WebSocket negotiated compression.
    pub compressed: bool,
    /// `opening`, `open`, `paused` (not being read), `held` (without an app server) or `away` (disconnected, may
    /// resume).
    pub state: String,
    /// Time since it was accepted, in seconds.
    pub age_s: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientDetails {
    #[serde(flatten)]
    pub client: ClientSummary,
    /// `User-Agent` of the first request.
    pub user_agent: Option<String>,
    /// Names of groups, at most 200.
    pub groups: Vec<String>,
    pub group_count: u64,
    pub outbox_bytes: u64,
    /// Calls still without an answer.
    pub pending_calls: u64,
    /// Time since the last data from the client, in seconds.
    pub heard_s: u32,
    /// Time since the last data sent to the client, in seconds.
    pub sent_s: u32,
    /// Time at which the connection closes with its access token, in seconds since 1970; `None` if never.
    pub token_ends_s: Option<u64>,
}

pub(super) fn client_summary(shared: &Shared, row: &ClientRow) -> ClientSummary {
    let hub = shared.hubs.at(row.hub);
    ClientSummary {
        id: row.id.clone(),
        node: shared.settings.node.clone(),
        hub: hub.map(|hub| hub.name().to_owned()).unwrap_or_default(),
        app: shared.hubs.instance(row.app).to_string(),
        app_name: app_name(shared, row.hub, row.app).unwrap_or_default(),
        user: row.user.clone(),
        address: row.address.clone(),
        transport: row.transport.into(),
        protocol: row.protocol.into(),
        compressed: row.is_compressed,
        state: row.state.into(),
        age_s: row.age_s,
    }
}

pub(super) fn app_name(shared: &Shared, hub: HubIndex, app: AppServerId) -> Option<String> {
    Some(shared.hubs.at(hub)?.pool_of(app)?.app.name.clone())
}
