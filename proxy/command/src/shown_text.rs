//! Sanitises external texts for a terminal: clients, other nodes and servers choose them, so they must not control it.
//!
//! Control characters move the cursor, set titles and forge lines; bidi marks change the displayed order. All output is
//! sanitised, at the latest before the standard streams.

use std::borrow::Cow;
use std::fmt::Write;

pub(super) use trunkline_process::is_steering;

const REPLACEMENT: char = '\u{fffd}';

/// Sanitises a line or a part of one. Line breaks and tabs become spaces.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    cleaned(text, |char| if matches!(char, '\n' | '\r' | '\t') { ' ' } else { REPLACEMENT }, |_| false)
}

/// Sanitises a multi-line text with sanitised parts.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    cleaned(text, |_| REPLACEMENT, |char| matches!(char, '\n' | '\t'))
}

/// Escapes terminal control characters in a JSON text, which keeps its value.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    let is_escaped = |char: char| is_steering(char) && !matches!(char, '\n' | '\t' | '\r');
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_escaped(char) {
            // Writing to a string can't fail. All these characters are below the surrogates.
            let _ = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

fn cleaned(text: &str, instead: impl Fn(char) -> char, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(|char| is_steering(char) && !is_kept(char)) {
        return Cow::Borrowed(text);
    }
    let shown = |char| if is_steering(char) && !is_kept(char) { instead(char) } else { char };
    Cow::Owned(text.chars().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGED: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n12:00 n1 \u{9b}31m\u{7f}\u{202e}nimda\u{2028}\u{2066}fake";

    #[test]
    fn a_text_from_elsewhere_is_one_line_and_steers_nothing() {
        let shown = one_line(FORGED);
        assert!(!shown.contains(is_steering), "{shown:?}");
        assert_eq!(shown.lines().count(), 1);
        assert!(shown.contains("  12:00 n1 ") && shown.contains("nimda"), "{shown:?}");
        assert_eq!(one_line("Grüße, 世界 👋"), "Grüße, 世界 👋");
    }

    #[test]
    fn a_text_of_several_lines_keeps_their_ends_and_nothing_else() {
        assert_eq!(lines("a\tb\nc\u{1b}[2J\r\n"), "a\tb\nc\u{fffd}[2J\u{fffd}\n");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ "method": FORGED });
        let shown = json(&value.to_string()).into_owned();
        assert!(!shown.contains(is_steering), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
