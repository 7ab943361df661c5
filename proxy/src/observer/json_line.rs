//! Lines of JSON, as recordings and traces are written.

use serde::Serialize;

/// Writes a line, with its end.
#[must_use]
pub fn json_line(line: &impl Serialize) -> String {
    // Texts, numbers and lists can always be written.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}
