//! Lines of a live trace: what nodes tell each other, `trunkline trace` and the page.
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
//! A message is told when it has passed the proxy on its way in; what is known of it later follows by node and number.
//! Times of day are those of the node that tells them, in microseconds since 1970; all else are durations, each by one
//! clock.

use serde::{Deserialize, Serialize};

use crate::shard::{HubTimes, MessageWay};

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum TraceLine {
    /// First line of a node.
    Header(TraceHeader),
    /// Another node takes part, or does not.
    Node(TraceNodeLine),
    /// News of a connection that is followed.
    Connection(TraceConnectionLine),
    /// A message has passed the proxy.
    Message(Box<TraceMessageLine>),
    /// A later hop of a message is known.
    Hop(TraceHopLine),
    /// Something was left out.
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
    /// Time of the beginning, in milliseconds since 1970.
    pub started_ms: u64,
    /// Seconds after which it ends.
    pub seconds: u64,
    /// Whether messages have their payloads.
    pub payloads: bool,
}

/// Whether another node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TraceNodeState {
    /// It takes part in the trace.
    Following,
    /// Of what passes there nothing is told.
    Missing,
}

/// News of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceNodeLine {
    /// Name of the node, or the address at which there is none.
    pub node: String,
    /// Whether it takes part.
    pub state: TraceNodeState,
    /// Reason why it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// News of a connection that is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceConnectionLine {
    /// Name of the node.
    pub node: String,
    /// Time, in microseconds since 1970.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// User of the connection, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the hub.
    pub hub: String,
    /// `present`, `opened`, `arrived`, `joined`, `left`, `moved` or `closed`.
    pub change: String,
    /// Cause of a close, by the label that metrics and logs have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// More about the cause, where there is more.
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
    /// Time at which the proxy has read it, from the client or from the link.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// User of the connection, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the hub.
    pub hub: String,
    /// Name of the app server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Direction in which it passes.
    pub way: MessageWay,
    /// Kind of hub message, or of a raw endpoint's.
    pub kind: String,
    /// Method, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Id of its invocation or stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// Length with its framing.
    pub bytes: u64,
    /// Payload as text, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Microseconds at the proxy: up until it was put into the link, down since it was read from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_us: Option<u64>,
    /// Rules about methods have refused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// Hops of it are still to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The app server tells how long it takes there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub marked: bool,
    /// Number of the call that it answers.
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
    /// Times in the app server, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubTimes>,
    /// Microseconds from the reading of a call to the arrival of its answer, by the proxy's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_us: Option<u64>,
    /// Microseconds from the outbox of the client to its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_us: Option<u64>,
    /// It was not written: the client is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// Loss of a node's trace since the line before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceLossLine {
    pub node: String,
    /// Messages that were not told: more came than a trace tells in a second.
    pub messages: u64,
    /// Hops that were not told.
    pub hops: u64,
    /// Connections that are not followed: there are too many.
    pub connections: u64,
}

/// Last line, with the reason of the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceEndLine {
    pub node: String,
    /// `time`, or `stopping` for a node that stops.
    pub reason: String,
}

impl TraceMessageLine {
    /// Whether it comes from the client.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.way == MessageWay::Up
    }
}
