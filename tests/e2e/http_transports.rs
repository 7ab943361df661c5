//! Server-Sent Events and long polling with client libraries.

pub(crate) mod libraries;

use serde_json::{Value, json};
use trunkline_tests::harness::raw::RECORD_SEPARATOR;

/// Encodes a call of `target`.
pub(crate) fn call(id: u64, target: &str, arguments: &Value) -> String {
    let call = json!({ "type": 1, "invocationId": id.to_string(), "target": target, "arguments": arguments });
    format!("{call}{RECORD_SEPARATOR}")
}
