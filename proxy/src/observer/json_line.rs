//! JSON lines of traces.

use serde::Serialize;

/// Serializes a value as one line.
#[must_use]
pub fn json_line(line: &impl Serialize) -> String {
    // Strings, numbers and lists always serialize.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}
