//! Message of an app server, as passed to the app by a client library.

use serde_json::Value;

/// Message sent by the app server to a target of the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Name of the called method.
    pub target: String,
    /// Arguments of the invocation.
    pub arguments: Vec<Value>,
}
