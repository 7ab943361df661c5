//! Characters that steer a terminal instead of being shown.

/// Whether a character is shown as nothing, and does something instead: C0, DEL and C1, ends of lines, and bidi marks.
#[must_use]
pub fn is_steering(char: char) -> bool {
    let is_line_end = matches!(char, '\u{2028}' | '\u{2029}');
    let is_bidi_mark =
        matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || is_line_end || is_bidi_mark
}
