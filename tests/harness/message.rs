//! Message of an app server, as a client library hands it to the app.

use serde_json::Value;

/// A message that the app server sent to a target of the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The method that it is for.
    pub target: String,
    /// Arguments of the invocation.
    pub arguments: Vec<Value>,
}
