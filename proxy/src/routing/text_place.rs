//! Places in a text file, as editors count them.

use std::fmt;

/// Place in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPlace {
    /// Line of the file, from 1.
    pub line: usize,
    /// Character of that line, from 1.
    pub column: usize,
}

impl TextPlace {
    /// Place of a byte of the text.
    #[must_use]
    pub fn new(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Self { line: before.matches('\n').count() + 1, column }
    }
}

impl fmt::Display for TextPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
