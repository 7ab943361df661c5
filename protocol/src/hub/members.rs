//! Members of a JSON object: locates keys and values without parsing the values.
//!
//! Scan and decoder share it, so proxy and app server never interpret the same bytes differently, and the nesting of
//! values passed to `serde_json` is bounded. Scans skip nested values and limit no depth: they find the id of a call
//! that is nested too deeply, so that only the call fails.
//!
//! Strict about the object itself, but reads values only to find their end. Parsers validate the values.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde::Deserialize;

use crate::limits::NESTING_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ObjectError {
    /// The text does not start with a brace.
    #[error("Expected a JSON Object.")]
    NotObject,
    /// The syntax is invalid.
    #[error("Error reading JSON.")]
    Syntax,
    /// The nesting is too deep.
    #[error("The JSON is nested over {NESTING_MAX} deep.")]
    Nesting,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Key, owned only if it contains escapes.
    pub(super) key: Cow<'a, str>,
    pub(super) value: &'a [u8],
}

#[derive(Debug)]
pub(super) struct Members<'a> {
    rest: &'a [u8],
    place: Place,
    nesting_max: usize,
}

/// ```text
///  First ──member──► Between ──`,` member──► Between
///    └──────`}`──────────┴───────`}`───────► Past      (also after an error)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Between,
    Past,
}

impl<'a> Members<'a> {
    pub(super) fn from_text(text: &'a [u8]) -> Result<Self, ObjectError> {
        Self::nested(text, NESTING_MAX)
    }

    /// Starts reading the object, with values of any depth.
    pub(super) fn of_any_depth(text: &'a [u8]) -> Result<Self, ObjectError> {
        Self::nested(text, usize::MAX)
    }

    fn nested(text: &'a [u8], nesting_max: usize) -> Result<Self, ObjectError> {
        let mut rest = text;
        skip_space(&mut rest);
        match rest {
            [b'{', rest @ ..] => Ok(Self { rest, place: Place::First, nesting_max }),
            _ => Err(ObjectError::NotObject),
        }
    }

    fn advance(&mut self) -> Result<Option<Member<'a>>, ObjectError> {
        skip_space(&mut self.rest);
        match (self.place, self.rest) {
            (Place::Past, _) => return Ok(None),
            (_, [b'}', rest @ ..]) => return self.leave(rest),
            (Place::First, _) => {}
            (Place::Between, [b',', rest @ ..]) => self.rest = rest,
            (Place::Between, _) => return Err(ObjectError::Syntax),
        }
        self.place = Place::Between;
        self.member().map(Some)
    }

    fn member(&mut self) -> Result<Member<'a>, ObjectError> {
        skip_space(&mut self.rest);
        let key = text_of(take_text(&mut self.rest)?)?;
        skip_space(&mut self.rest);
        self.rest = self.rest.strip_prefix(b":").ok_or(ObjectError::Syntax)?;
        skip_space(&mut self.rest);
        let value = take_value(&mut self.rest, self.nesting_max)?;
        Ok(Member { key, value })
    }

    fn leave(&mut self, mut rest: &'a [u8]) -> Result<Option<Member<'a>>, ObjectError> {
        self.place = Place::Past;
        skip_space(&mut rest);
        if rest.is_empty() { Ok(None) } else { Err(ObjectError::Syntax) }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, ObjectError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.place = Place::Past;
        }
        next.transpose()
    }
}

/// JSON string, borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses a JSON string with its quotes; borrowed unless it contains escapes. Returns `None` for other values.
pub(super) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    serde_json::from_slice::<Text<'_>>(value).ok().map(|text| text.0)
}

/// Parses a JSON array of strings. Returns `None` for other values.
pub(super) fn texts(value: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    let texts: Vec<Text<'_>> = serde_json::from_slice(value).ok()?;
    Some(texts.into_iter().map(|text| text.0).collect())
}

/// Parses a JSON integer. Returns `None` for other values.
pub(super) fn integer(value: &[u8]) -> Option<i64> {
    serde_json::from_slice(value).ok()
}

/// Text of a key. Most keys contain no escapes and need no parser.
fn text_of(key: &[u8]) -> Result<Cow<'_, str>, ObjectError> {
    let read = match key {
        [b'"', inner @ .., b'"'] if memchr(b'\\', inner).is_none() => {
            std::str::from_utf8(inner).ok().map(Cow::Borrowed)
        }
        _ => text(key),
    };
    read.ok_or(ObjectError::Syntax)
}

fn skip_space(rest: &mut &[u8]) {
    while let [b' ' | b'\t' | b'\n' | b'\r', after @ ..] = *rest {
        *rest = after;
    }
}

fn take_value<'a>(rest: &mut &'a [u8], nesting_max: usize) -> Result<&'a [u8], ObjectError> {
    match *rest {
        [b'"', ..] => take_text(rest),
        [b'{' | b'[', ..] => take_nested(rest, nesting_max),
        _ => take_scalar(rest),
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ObjectError> {
    let whole = *rest;
    let mut tail = whole.strip_prefix(b"\"").ok_or(ObjectError::Syntax)?;
    loop {
        let at = memchr2(b'"', b'\\', tail).ok_or(ObjectError::Syntax)?;
        match tail.get(at..) {
            Some([b'"', after @ ..]) => return take_until(rest, after),
            Some([_, _, after @ ..]) => tail = after,
            _ => return Err(ObjectError::Syntax),
        }
    }
}

/// Takes an array or object. Matching bracket kinds is left to the parser.
fn take_nested<'a>(rest: &mut &'a [u8], nesting_max: usize) -> Result<&'a [u8], ObjectError> {
    let mut tail = *rest;
    // The enclosing object is the first level.
    let mut depth = 1;
    loop {
        match tail {
            [b'"', ..] => {
                take_text(&mut tail)?;
            }
            [b'{' | b'[', after @ ..] => {
                depth += 1;
                tail = after;
            }
            [b'}' | b']', after @ ..] => {
                depth -= 1;
                tail = after;
            }
            [_, after @ ..] => tail = after,
            [] => return Err(ObjectError::Syntax),
        }
        match depth {
            1 => return take_until(rest, tail),
            _ if depth > nesting_max => return Err(ObjectError::Nesting),
            _ => {}
        }
    }
}

/// Takes a number or literal up to the next delimiter.
fn take_scalar<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ObjectError> {
    let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']');
    match rest.iter().position(ends).and_then(|end| rest.split_at_checked(end)) {
        Some((scalar, after)) if !scalar.is_empty() => {
            *rest = after;
            Ok(scalar)
        }
        _ => Err(ObjectError::Syntax),
    }
}

/// Takes everything before `after`, the tail of `rest`.
fn take_until<'a>(rest: &mut &'a [u8], after: &'a [u8]) -> Result<&'a [u8], ObjectError> {
    let length = rest.len().saturating_sub(after.len());
    let taken = rest.get(..length).ok_or(ObjectError::Syntax)?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Vec<(String, String)>, ObjectError> {
        let pair = |member: Member<'_>| (member.key.into_owned(), String::from_utf8(member.value.to_vec()).unwrap());
        Members::from_text(text.as_bytes())?.map(|member| member.map(pair)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Result<Vec<(String, String)>, ObjectError> {
        Ok(expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn members_are_found_with_and_without_white_space() {
        let expected = pairs(&[("a", "1"), ("b", "[1, {\"x\": 2}]"), ("c", "\"t\""), ("d", "null")]);
        assert_eq!(members(r#"{"a":1,"b":[1, {"x": 2}],"c":"t","d":null}"#), expected);
        assert_eq!(members("\t{ \"a\" :1 ,\n\"b\": [1, {\"x\": 2}] , \"c\":\"t\", \"d\" : null\r\n} "), expected);
        assert_eq!(members(" { } "), pairs(&[]));
    }

    #[test]
    fn brackets_and_quotes_inside_strings_end_nothing() {
        let text = r#"{"a":["]}\"",{"}":"\\"}],"b":"{\\\"}"}"#;
        assert_eq!(members(text), pairs(&[("a", r#"["]}\"",{"}":"\\"}]"#), ("b", r#""{\\\"}""#)]));
    }

    #[test]
    fn a_key_with_escapes_is_read() {
        assert_eq!(members(r#"{"t\u0079pe":6}"#), pairs(&[("type", "6")]));
        assert_eq!(members(r#"{"\ud800":6}"#), Err(ObjectError::Syntax));
    }

    #[test]
    fn other_values_than_objects_are_refused() {
        for text in ["", " ", "[]", "1", "null", "\"{}\""] {
            assert_eq!(members(text), Err(ObjectError::NotObject), "{text}");
        }
    }

    #[test]
    fn a_broken_object_is_refused() {
        let broken = [
            "{",
            "{\"",
            "{\"a",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":}",
            "{\"a\":,}",
            "{\"a\" 1}",
            "{a:1}",
            "{,}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":[}",
            "{\"a\":\"\\",
            "{}x",
            "{}{}",
            "{\"a\":1]",
        ];
        for text in broken {
            assert_eq!(members(text), Err(ObjectError::Syntax), "{text}");
        }
    }

    #[test]
    fn an_error_ends_the_iteration() {
        let mut members = Members::from_text(b"{1,\"a\":2}").unwrap();
        assert_eq!(members.next(), Some(Err(ObjectError::Syntax)));
        assert_eq!(members.next(), None);
    }

    #[test]
    fn nesting_is_bounded_the_object_itself_included() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(members(&nested(NESTING_MAX - 1)).is_ok());
        assert_eq!(members(&nested(NESTING_MAX)), Err(ObjectError::Nesting));
    }

    #[test]
    fn only_whole_numbers_are_integers() {
        assert_eq!(integer(b"-7"), Some(-7));
        for other in ["1.0", "1e0", "\"1\"", "01", "+1", "9223372036854775808", "null", ""] {
            assert_eq!(integer(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn texts_are_borrowed_unless_they_hold_escapes() {
        assert!(matches!(text(b"\"plain\""), Some(Cow::Borrowed("plain"))));
        assert!(matches!(text(br#""\u00e9""#), Some(Cow::Owned(text)) if text == "\u{e9}"));
        assert_eq!(text(b"1"), None);
        assert_eq!(text(b"\"\n\""), None);
    }
}
