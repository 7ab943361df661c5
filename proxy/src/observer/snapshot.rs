//! Snapshots in the JSON form that pages, terminals and other nodes read.
//!
//! Nodes of a fleet may run different versions for a while: fields that are missing take their defaults.

use serde::{Deserialize, Serialize};

use super::rule_snapshot::{DifferenceSnapshot, RuleSnapshot};
use crate::fleet::MemberState;

/// Snapshot of all known nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetSnapshot {
    /// Time of the snapshot, in milliseconds since 1970.
    pub at_ms: u64,
    /// All nodes that answered, sorted by name.
    pub nodes: Vec<NodeSnapshot>,
    /// Whether all nodes see the same members.
    pub agree: bool,
    /// Addresses that lead to no node.
    pub unreachable: Vec<UnreachablePeer>,
    /// Names of nodes that gave no answer in time: they are shown as they were when they last told.
    pub missing: Vec<String>,
}

impl Default for FleetSnapshot {
    /// No nodes, which agree: those of earlier versions don't say that they do.
    fn default() -> Self {
        Self { at_ms: 0, nodes: Vec::new(), agree: true, unreachable: Vec::new(), missing: Vec::new() }
    }
}

/// Address of `--peers` that leads to no node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnreachablePeer {
    /// Address of its admin port.
    pub url: String,
    /// Reason why it does not answer.
    pub problem: String,
}

/// Snapshot of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSnapshot {
    /// Name of the node.
    pub name: String,
    /// Id of this start of the node.
    pub instance: String,
    /// Version of its program.
    pub version: String,
    /// State as the node sees it that answers.
    pub state: MemberState,
    /// Time by which it is behind: a round trip, or how long it owes an answer.
    pub lag_ms: u64,
    /// Address that other nodes reach it at.
    pub address: String,
    /// Time since its start, in seconds.
    pub uptime_s: u64,
    /// Time of the snapshot, in milliseconds since 1970.
    pub at_ms: u64,
    /// Age of these numbers at the time of the fleet's snapshot; `None` while the node has told none.
    pub age_ms: Option<u64>,
    /// Number of threads that serve clients.
    pub shards: u64,
    /// Reasons why it accepts no clients; empty when it does.
    pub not_ready: Vec<String>,
    /// Warnings for people of a node that accepts clients.
    pub warnings: Vec<String>,
    /// Client connections that are open.
    pub clients: u64,
    /// Sockets of clients, opening and closing ones included.
    pub sockets: u64,
    /// Groups with members, summed over the shards.
    pub groups: u64,
    /// Users with connections, summed over the shards.
    pub users: u64,
    /// Clients whose sockets have ended and that may come back, to any node.
    pub away: u64,
    /// Rebalance that the node coordinates, or has ended a short while ago.
    pub rebalance: Option<RebalanceReport>,
    /// Bytes in the outboxes of clients.
    pub outbox_bytes: u64,
    /// CPU and memory of its process.
    pub process: ProcessUsage,
    /// CPU and memory of its machine.
    pub host: HostUsage,
    /// `None` without a recent snapshot to compare with.
    pub rates: Option<Rates>,
    /// Hubs that it serves.
    pub hubs: Vec<HubSnapshot>,
    /// Its pools of links, by hub and app server.
    pub links: Vec<PoolSnapshot>,
    /// Rules of the operator that are in force.
    pub rules: Vec<RuleSnapshot>,
    /// Newest answers of mirrors that differ.
    pub differences: Vec<DifferenceSnapshot>,
    /// Reason why the rules of the file are not in force; `None` if they are.
    pub rules_problem: Option<String>,
    /// Its client connections one by one, where they are few.
    pub individuals: Option<Vec<ClientSummary>>,
}

/// Progress of a rebalance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebalanceReport {
    /// Random name; empty where there was none.
    pub id: String,
    /// Node that coordinates it.
    pub node: String,
    /// Goal: `mean`, `percent` or `node`.
    pub to: String,
    /// Number of clients that have to leave their nodes.
    pub planned: u64,
    /// Number of those that have left, by the numbers of clients: one that has come back to its node has not.
    pub moved: u64,
    /// Clients that were sent elsewhere and have brought the goal no nearer.
    pub failed: u64,
    /// How far it has come.
    pub state: RebalanceState,
    /// Reason for an end without the goal.
    pub reason: Option<String>,
    /// Time of its begin, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Nodes without fresh numbers when it was planned.
    pub missing: Vec<MissingCount>,
}

/// Node whose number of clients was not known afresh when a rebalance was planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissingCount {
    /// Name of the node, or address of `--peers` that leads to none.
    pub node: String,
    /// Reason, which continues the name.
    pub problem: String,
    /// Age of the number that was taken instead, in milliseconds; `None` where the node was left out.
    pub age_ms: Option<u64>,
}

/// State of a rebalance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebalanceState {
    /// None has run at the node.
    #[default]
    Idle,
    /// Only planned, by a dry run.
    Planned,
    /// Clients are on their way.
    Running,
    /// It has reached its goal.
    Done,
    /// It makes no progress any more.
    Stalled,
    /// An operator has ended it, or its node stops.
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
    /// Share of one core, in percent; `None` without a recent snapshot to compare with.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the process.
    pub memory_bytes: Option<u64>,
}

/// CPU and memory of the machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostUsage {
    /// Share of all its cores, in percent.
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
    /// Client connections that have opened.
    pub opened: f64,
    /// Client connections that have closed.
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
    /// Its open client connections.
    pub clients: u64,
    /// Clients that wait for an app server.
    pub homeless: u64,
    /// Number of clients by transport.
    pub transports: Vec<(String, u64)>,
    /// Number of clients by hub protocol.
    pub protocols: Vec<(String, u64)>,
}

/// Snapshot of a pool: the links of one node for one hub to one app server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSnapshot {
    /// Name of the hub.
    pub hub: String,
    /// Id of this start of the app server.
    pub app: String,
    /// Name of the app server.
    pub app_name: String,
    /// Address of the app server.
    pub address: String,
    /// Name of its group.
    pub group: String,
    /// Whether it gets copies alone.
    pub is_mirror: bool,
    /// Whether the app server is shutting down.
    pub is_leaving: bool,
    /// Links that are open.
    pub open: u64,
    /// Links that wait to be resumed.
    pub resuming: u64,
    /// Links that have to be dialled.
    pub down: u64,
    /// Clients whose home link is one of them.
    pub clients: u64,
}

/// Client connection as lists show it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientSummary {
    /// Its id, or the first 22 characters of one that is a token.
    pub id: String,
    pub node: String,
    pub hub: String,
    /// Id of the start of its app server; empty while it has none.
    pub app: String,
    pub app_name: String,
    pub user: Option<String>,
    pub address: Option<String>,
    pub transport: String,
    /// Hub protocol, or `raw`.
    pub protocol: String,
    /// `opening`, `open`, `paused` (not read for now), `held` (without an app server) or `away` (without a socket, and
    /// may come back).
    pub state: String,
    /// Time since it was accepted, in seconds.
    pub age_s: u32,
}

/// Details of one client connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientDetails {
    #[serde(flatten)]
    pub client: ClientSummary,
    /// The `User-Agent` of its first request.
    pub user_agent: Option<String>,
    /// Names of its groups, at most 200.
    pub groups: Vec<String>,
    /// Number of all its groups.
    pub group_count: u64,
    /// Size of its outbox.
    pub outbox_bytes: u64,
    /// Calls without an answer so far.
    pub pending_calls: u64,
    /// Time since it was last heard of, in seconds.
    pub heard_s: u32,
    /// Time since something was last sent to it, in seconds.
    pub sent_s: u32,
    /// Time at which it closes with its access token, in seconds since 1970; `None` if it does not.
    pub token_ends_s: Option<u64>,
}
