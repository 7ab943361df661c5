//! Answers of clients to client result requests.

use serde_json::{Value, json};

/// Behaviour of a client's handler for a request.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientAnswer {
    /// Returns a JSON value.
    Value(Value),
    /// Throws an error with this text.
    Error(String),
    /// Returns without a value.
    Nothing,
    /// Never completes the request.
    Never,
    /// Returns a value that the test sets later, with [`Client::answer_held`](super::Client::answer_held).
    Held,
    /// Several handlers, each with a return value.
    Several(Vec<Value>),
}

impl ClientAnswer {
    /// JSON encoding for agents.
    pub(super) fn order(&self) -> Value {
        match self {
            ClientAnswer::Value(value) => json!({ "value": value }),
            ClientAnswer::Error(text) => json!({ "throws": text }),
            ClientAnswer::Nothing => json!("nothing"),
            ClientAnswer::Never => json!("never"),
            ClientAnswer::Held => json!("held"),
            ClientAnswer::Several(values) => json!({ "values": values }),
        }
    }
}
