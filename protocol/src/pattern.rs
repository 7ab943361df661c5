//! Text patterns with `*` as a wildcard.
//!
//! Matching needs one pass for any number of wildcards: the pieces between them are searched from left to right, and
//! the leftmost occurrence is always the best.

use std::fmt;
use std::sync::Arc;

/// Maximum length of a pattern, far longer than paths and method names.
pub const PATTERN_MAX_BYTES: usize = 256;

/// Wildcard for any number of characters, including none.
const STAR: char = '*';

/// Error of an invalid pattern, worded to follow the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is no text.
    #[error("is empty; `*` stands for any text")]
    Empty,
    /// The text is too long.
    #[error("has {bytes} bytes, but a pattern has at most {PATTERN_MAX_BYTES}")]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// The text has a control character.
    #[error("has a control character")]
    Control,
}

/// Text pattern. Case-sensitive, with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Text of the pattern.
    pub text: Arc<str>,
    /// Pieces between wildcards; a single piece without wildcards.
    pieces: Box<[Box<str>]>,
}

impl Pattern {
    /// Parses and checks a pattern. Fails if the pattern is empty, too long or contains a control character.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        match text.len() {
            0 => Err(PatternError::Empty),
            bytes if bytes > PATTERN_MAX_BYTES => Err(PatternError::TooLong { bytes }),
            _ if text.chars().any(char::is_control) => Err(PatternError::Control),
            _ => Ok(Self { text: text.into(), pieces: text.split(STAR).map(Into::into).collect() }),
        }
    }

    /// The only matching text; `None` if there is a wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match &*self.pieces {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether the pattern matches a text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (first, middle, last) = match &*self.pieces {
            [first, middle @ .., last] => (first, middle, last),
            [only] => return text == &**only,
            [] => return false,
        };
        let inside = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
        let Some(mut rest) = inside else { return false };
        middle.iter().all(|piece| {
            let behind = rest.split_once(&**piece).map(|(_, behind)| behind);
            behind.inspect(|behind| rest = behind).is_some()
        })
    }

    /// Whether this pattern matches every text that the other matches. Only a wildcard of this pattern covers a
    /// wildcard of the other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.text)
    }

    /// Whether a text may match both patterns. Two patterns with wildcards are assumed to share one.
    #[must_use]
    pub fn may_share(&self, other: &Self) -> bool {
        let is_exact = self.exact().is_some() || other.exact().is_some();
        !is_exact || self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    /// Brute-force matcher, for comparison.
    fn tried(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|skipped| tried(rest, &text[skipped..])),
            [first, rest @ ..] => text.first() == Some(first) && tried(rest, &text[1..]),
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_and_all_else_for_itself() {
        for (pattern, text) in
            [("Say", "Say"), ("*", ""), ("*", "Say"), ("Admin*", "Admin"), ("a*b*c", "aXbYbZc"), ("a**b", "ab")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("Say", "say"), ("Say", "Says"), ("Admin*", "Admi"), ("ab*bc", "abc"), ("a*b*c", "acb"), ("a.c", "abc")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_cost_one_pass_and_not_all_ways_of_placing_them() {
        let pattern = "a*".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(1_000_000)));
    }

    #[test]
    fn texts_that_are_no_patterns_are_refused_with_the_reason() {
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert_eq!(Pattern::new("a\n"), Err(PatternError::Control));
        assert_eq!(Pattern::new(&"a".repeat(257)), Err(PatternError::TooLong { bytes: 257 }));
        assert!(Pattern::new(&"a".repeat(256)).is_ok());
    }

    #[test]
    fn a_pattern_covers_those_that_are_narrower() {
        let covers = |one: &str, other: &str| Pattern::new(one).unwrap().covers(&Pattern::new(other).unwrap());
        for (wide, narrow) in [("*", "a*b"), ("a*", "ab*c"), ("a", "a"), ("a*", "a*"), ("*b*", "a*bc")] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (one, other) in [("a*b", "a*"), ("a", "a*"), ("ab*", "a*b")] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_pass_finds_what_trying_all_ways_finds(pattern in "[abé*]{1,8}", text in "[abé]{0,10}") {
            let (pattern_chars, text_chars): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), tried(&pattern_chars, &text_chars));
        }

        #[test]
        fn what_is_covered_matches_the_wider_pattern(wide in "[ab*]{1,6}", narrow in "[ab*]{1,6}", text in "[ab]{0,8}") {
            let (wide, narrow) = (Pattern::new(&wide).unwrap(), Pattern::new(&narrow).unwrap());
            prop_assert!(!wide.covers(&narrow) || !narrow.matches(&text) || wide.matches(&text));
        }
    }
}
