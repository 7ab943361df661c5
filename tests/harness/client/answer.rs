//! Answers of clients to client result requests.

use serde_json::{Value, json};

/// Behaviour of a client's handler, once it was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientAnswer {
    /// Returns a value of JSON.
    Value(Value),
    /// Throws an error with this text.
    Error(String),
    /// Returns without a value.
    Nothing,
    /// Never comes to an end.
    Never,
    /// Returns what the test says later, by [`Client::answer_held`](super::Client::answer_held).
    Held,
    /// Several handlers, and each returns something.
    Several(Vec<Value>),
}

impl ClientAnswer {
    /// The form that agents read.
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
