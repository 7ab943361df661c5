//! What a client does when the server asks it for a result.

use serde_json::{Value, json};

/// What the client's handler does, once it was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Returns this.
    Value(Value),
    /// Throws an error with this text.
    Error(String),
    /// Returns nothing.
    Nothing,
    /// Never comes to an end.
    Never,
    /// Several handlers, and each returns something.
    Several(Vec<Value>),
}

impl Answer {
    /// As the agents read it.
    pub(super) fn order(&self) -> Value {
        match self {
            Answer::Value(value) => json!({ "value": value }),
            Answer::Error(text) => json!({ "throws": text }),
            Answer::Nothing => json!("nothing"),
            Answer::Never => json!("never"),
            Answer::Several(values) => json!({ "values": values }),
        }
    }
}
