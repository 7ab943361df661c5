//! Lines of a live trace, for other nodes, `trunkline trace` and the page.
//!
//! ```text
//!  {"event":"header","node":"n1","startedMs":…,"seconds":30,"payloads":false}
//!  {"event":"node","node":"n2","state":"following"}
//!  {"event":"connection","node":"n1","atUs":…,"connection":ID,"user":"ann","hub":"chat","change":"present"}
//!  {"event":"message","node":"n1","number":4,"atUs":…,"way":"up","kind":"invocation","target":"Say","linkUs":11,…}
//!  {"event":"hop","node":"n1","number":4,"hub":{"waitedUs":20,"queuedUs":3,"ranUs":950,"answeredUs":9}}
//!  {"event":"end","node":"n1","reason":"time"}
//! ```
//!
//! A message is reported once it has passed the proxy; later details follow, identified by node and number. Times are
//! in microseconds since 1970 by the reporting node's clock. Durations are measured with one clock.

use serde::{Deserialize, Serialize};

use crate::features::watch::{HubTimes, MessageDirection};

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum TraceLine {
    /// First line of a node.
    Header(TraceHeader),
    /// Another node takes part or is missing.
    Node(TraceNodeLine),
    /// Change of a followed connection.
    Connection(TraceConnectionLine),
    /// A message has passed the proxy.
    Message(Box<TraceMessageLine>),
    /// Later hop of a message.
    Hop(TraceHopLine),
    /// Some data was dropped.
    Lost(TraceLossLine),
    /// Last line of a node.
    End(TraceEndLine),
}

/// First line of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceHeader {
    /// Name of the node.
    pub node: String,
    /// Start time in milliseconds since 1970.
    pub started_ms: u64,
    /// Duration of the trace in seconds.
    pub seconds: u64,
    /// Whether messages include payloads.
    pub payloads: bool,
}

/// Participation of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TraceNodeState {
    /// The node takes part.
    Following,
    /// The node's messages are not traced.
    Missing,
}

/// Participation of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceNodeLine {
    /// Name of the node, or an address without a node.
    pub node: String,
    /// Whether the node takes part.
    pub state: TraceNodeState,
    /// Reason why the node is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Change of a followed connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceConnectionLine {
    /// Name of the node.
    pub node: String,
    /// Time in microseconds since 1970.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// User of the connection, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the hub.
    pub hub: String,
    /// `present`, `opened`, `arrived`, `joined`, `left`, `moved` or `closed`.
    pub change: String,
    /// Cause of a close, labelled as in metrics and logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Details of the cause, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Message of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceMessageLine {
    /// Name of the node.
    pub node: String,
    /// Number of the message at its node.
    pub number: u64,
    /// Time at which the proxy read it from the client or link.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// User of the connection, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the hub.
    pub hub: String,
    /// Name of the app server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Direction of the message.
    pub way: MessageDirection,
    /// Kind of hub message, or of raw message.
    pub kind: String,
    /// Method name, if the message has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Id of the invocation or stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// Length in bytes, framing included.
    pub bytes: u64,
    /// Payload as text, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Microseconds at the proxy: upward until queued on the link, downward since read from the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_us: Option<u64>,
    /// Refused by a rule about methods.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// Further hops will be reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The app server will report its processing times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub marked: bool,
    /// Number of the answered call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
}

/// Later hop of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceHopLine {
    /// Name of the node.
    pub node: String,
    /// Number of the message at its node.
    pub number: u64,
    /// Times in the app server, on its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubTimes>,
    /// Microseconds from reading a call to receiving its answer, on the proxy's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_us: Option<u64>,
    /// Microseconds from the client's outbox to its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_us: Option<u64>,
    /// Not written because the client is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// Data dropped from a node's trace since the previous line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceLossLine {
    pub node: String,
    /// Messages dropped at the rate limit of a trace.
    pub messages: u64,
    /// Hops dropped at the rate limit.
    pub hops: u64,
    /// Connections not followed because of the limit.
    pub connections: u64,
}

/// Last line, with the reason for the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceEndLine {
    pub node: String,
    /// `time`, or `stopping` if the node stops.
    pub reason: String,
}

impl TraceMessageLine {
    /// Whether the message is from the client.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.way == MessageDirection::Up
    }
}
