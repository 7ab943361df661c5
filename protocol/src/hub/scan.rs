//! Structural scan: finds a message's kind and invocation id without parsing the rest and without allocating.
//!
//! For JSON it walks the top-level keys in any order (the JavaScript client writes `type` last) and skips strings and
//! nested values. In MessagePack both come first.

use std::borrow::Cow;

use rmp::decode::{read_array_len, read_int, read_map_len, read_str_from_slice};

use super::members::{self, Members, ObjectError};
use crate::message_pack::skip_value;

pub(super) const NIL: u8 = 0xc0;

/// Kind of result of a MessagePack completion with an error.
const ERROR_RESULT: u8 = 1;

/// The kind of a hub message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Type 1: call of a method.
    Invocation,
    /// Type 2: item of a stream.
    StreamItem,
    /// Type 3: end of an invocation or stream.
    Completion,
    /// Type 4: call of a streaming method.
    StreamInvocation,
    /// Type 5: request to stop a stream.
    CancelInvocation,
    /// Type 6: keep-alive of a peer.
    Ping,
    /// Type 7: end of the connection.
    Close,
    /// Type 8: acknowledgement for stateful reconnect.
    Ack,
    /// Type 9: sequence number for stateful reconnect.
    Sequence,
    /// Any other number, of a newer version. Passed on.
    Unknown(i64),
}

/// Part of a message that a proxy reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Kind of the message.
    pub kind: MessageKind,
    /// Invocation id, unless missing or empty. Owned only if it contains escapes.
    pub invocation_id: Option<Cow<'a, str>>,
    /// Whether it is a completion with an error.
    pub is_error: bool,
}

/// Error finding the kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The top-level keys include no `type`.
    #[error("Missing required property 'type'.")]
    NoKind,
    /// The body is malformed.
    #[error("the message is malformed")]
    Malformed,
}

impl From<i64> for MessageKind {
    fn from(number: i64) -> Self {
        match number {
            1 => Self::Invocation,
            2 => Self::StreamItem,
            3 => Self::Completion,
            4 => Self::StreamInvocation,
            5 => Self::CancelInvocation,
            6 => Self::Ping,
            7 => Self::Close,
            8 => Self::Ack,
            9 => Self::Sequence,
            other => Self::Unknown(other),
        }
    }
}

impl MessageKind {
    /// Number of this kind.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Invocation => 1,
            Self::StreamItem => 2,
            Self::Completion => 3,
            Self::StreamInvocation => 4,
            Self::CancelInvocation => 5,
            Self::Ping => 6,
            Self::Close => 7,
            Self::Ack => 8,
            Self::Sequence => 9,
            Self::Unknown(other) => other,
        }
    }

    /// Whether messages of this kind may have an invocation id.
    #[must_use]
    pub fn has_invocation_id(self) -> bool {
        matches!(
            self,
            Self::Invocation | Self::StreamItem | Self::Completion | Self::StreamInvocation | Self::CancelInvocation
        )
    }
}

impl From<ObjectError> for ScanError {
    fn from(_: ObjectError) -> Self {
        Self::Malformed
    }
}

// Scans to the end even if both are found: the last of two equal keys counts.
pub(super) fn json(body: &[u8]) -> Result<Scan<'_>, ScanError> {
    let (mut kind, mut invocation_id, mut error) = (None, None, None);
    for member in Members::of_any_depth(body)? {
        let member = member?;
        match &*member.key {
            "type" => kind = Some(member.value),
            "invocationId" => invocation_id = Some(member.value),
            "error" => error = Some(member.value),
            _ => {}
        }
    }
    let number = members::integer(kind.ok_or(ScanError::NoKind)?).ok_or(ScanError::Malformed)?;
    let kind = MessageKind::from(number);
    let is_error = kind == MessageKind::Completion && error.is_some_and(|error| error != b"null");
    Ok(Scan { kind, invocation_id: json_text(invocation_id.filter(|_| kind.has_invocation_id()))?, is_error })
}

/// Parses an optional or null string. Returns `None` if it is empty.
pub(super) fn json_text(value: Option<&[u8]>) -> Result<Option<Cow<'_, str>>, ScanError> {
    match value {
        None | Some(b"null") => Ok(None),
        Some(value) => Ok(Some(members::text(value).ok_or(ScanError::Malformed)?).filter(|text| !text.is_empty())),
    }
}

pub(super) fn message_pack(body: &[u8]) -> Result<Scan<'_>, ScanError> {
    let (kind, _, rest) = pack_kind(body)?;
    if !kind.has_invocation_id() {
        return Ok(Scan { kind, invocation_id: None, is_error: false });
    }
    let rest = skip_headers(rest).ok_or(ScanError::Malformed)?;
    let (invocation_id, rest) = match rest {
        [NIL, rest @ ..] => (None, rest),
        _ => read_str_from_slice(rest).map(|(id, rest)| (Some(id), rest)).map_err(|_| ScanError::Malformed)?,
    };
    let is_error = kind == MessageKind::Completion && matches!(rest, [ERROR_RESULT, ..]);
    Ok(Scan { kind, invocation_id: invocation_id.filter(|id| !id.is_empty()).map(Cow::Borrowed), is_error })
}

/// Reads the kind and number of items of a MessagePack message. Also returns the bytes after the kind.
pub(super) fn pack_kind(body: &[u8]) -> Result<(MessageKind, u32, &[u8]), ScanError> {
    let mut rest = body;
    let items = read_array_len(&mut rest).map_err(|_| ScanError::Malformed)?;
    if items == 0 {
        return Err(ScanError::NoKind);
    }
    let number = read_int::<i64, _>(&mut rest).map_err(|_| ScanError::Malformed)?;
    Ok((MessageKind::from(number), items, rest))
}

/// Skips a map, or nil in place of an empty one. Values may have any type, as in some app servers.
pub(super) fn skip_headers(mut rest: &[u8]) -> Option<&[u8]> {
    if let [NIL, rest @ ..] = rest {
        return Some(rest);
    }
    let entries = read_map_len(&mut rest).ok()?;
    for _ in 0..u64::from(entries) * 2 {
        rest = skip_value(rest).ok()?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(kind: MessageKind, invocation_id: Option<&str>) -> Result<Scan<'_>, ScanError> {
        Ok(Scan { kind, invocation_id: invocation_id.map(Cow::Borrowed), is_error: false })
    }

    #[test]
    fn a_completion_with_an_error_is_found() {
        let is_error = |scan: Result<Scan<'_>, ScanError>| scan.unwrap().is_error;
        assert!(is_error(json(br#"{"error":"no","type":3,"invocationId":"1"}"#)));
        assert!(is_error(message_pack(b"\x95\x03\x80\xa11\x01\xa2no")));
        for other in [r#"{"type":3,"invocationId":"1","error":null}"#, r#"{"type":7,"error":"no"}"#] {
            assert!(!is_error(json(other.as_bytes())), "{other}");
        }
        for other in [&b"\x95\x03\x80\xa11\x03\x2a"[..], b"\x94\x03\x80\xa11\x02", b"\x95\x02\x80\xa11\x01"] {
            assert!(!is_error(message_pack(other)), "{other:?}");
        }
    }

    #[test]
    fn the_kind_is_found_in_any_position() {
        let expected = scan(MessageKind::Invocation, Some("0"));
        assert_eq!(json(br#"{"target":"Add","arguments":[40,2],"invocationId":"0","type":1}"#), expected);
        assert_eq!(json(br#"{"type":1,"invocationId":"0","target":"Add","arguments":[40,2]}"#), expected);
        assert_eq!(json(br#"{ "arguments" : [40], "type" : 1 , "invocationId" : "0" }"#), expected);
    }

    #[test]
    fn keys_inside_values_and_strings_are_not_taken_for_those_of_the_message() {
        let body = br#"{"arguments":[{"type":7,"invocationId":"9"},"\"type\":7}"],"target":"type","type":1}"#;
        assert_eq!(json(body), scan(MessageKind::Invocation, None));
    }

    #[test]
    fn a_key_with_escapes_is_unescaped() {
        assert_eq!(json(br#"{"\u0074ype":6}"#), scan(MessageKind::Ping, None));
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        assert_eq!(
            json(br#"{"type":6,"type":1,"invocationId":"a","invocationId":null}"#),
            scan(MessageKind::Invocation, None)
        );
    }

    #[test]
    fn an_id_is_borrowed_unless_it_holds_escapes() {
        let plain = json(br#"{"type":3,"invocationId":"s1"}"#).unwrap();
        assert!(matches!(plain.invocation_id, Some(Cow::Borrowed("s1"))));
        let escaped = json(br#"{"type":3,"invocationId":"s\u0031"}"#).unwrap();
        assert!(matches!(escaped.invocation_id, Some(Cow::Owned(id)) if id == "s1"));
    }

    #[test]
    fn an_empty_id_is_absent() {
        assert_eq!(json(br#"{"type":1,"invocationId":""}"#), scan(MessageKind::Invocation, None));
        assert_eq!(json(br#"{"type":1,"invocationId":null}"#), scan(MessageKind::Invocation, None));
        assert_eq!(message_pack(b"\x95\x01\x80\xa0\xa1x\x90"), scan(MessageKind::Invocation, None));
        assert_eq!(message_pack(b"\x95\x01\x80\xc0\xa1x\x90"), scan(MessageKind::Invocation, None));
    }

    #[test]
    fn kinds_that_are_about_no_invocation_have_no_id() {
        assert_eq!(json(br#"{"type":6,"invocationId":5}"#), scan(MessageKind::Ping, None));
        assert_eq!(message_pack(b"\x92\x07\xc0"), scan(MessageKind::Close, None));
    }

    #[test]
    fn an_unknown_kind_keeps_its_number() {
        assert_eq!(json(br#"{"type":99}"#), scan(MessageKind::Unknown(99), None));
        assert_eq!(message_pack(b"\x92\x63\x80"), scan(MessageKind::Unknown(99), None));
    }

    #[test]
    fn a_message_without_a_kind_is_refused() {
        assert_eq!(json(b"{}"), Err(ScanError::NoKind));
        assert_eq!(message_pack(b"\x90"), Err(ScanError::NoKind));
        for kind in ["null", "\"1\"", "1.0", "[1]", "true"] {
            assert_eq!(json(format!("{{\"type\":{kind}}}").as_bytes()), Err(ScanError::Malformed), "{kind}");
        }
    }

    #[test]
    fn message_pack_headers_are_passed_over() {
        let body = b"\x96\x01\x82\xa1x\xa1y\xa1z\xa1z\xa3xyz\xa6method\x91\x2a\x90";
        assert_eq!(message_pack(body), scan(MessageKind::Invocation, Some("xyz")));
    }

    #[test]
    fn message_pack_that_ends_too_early_is_malformed() {
        let body = b"\x95\x03\x81\xa1x\xa1y\xa2s1";
        assert!(message_pack(body).is_ok());
        for end in 0..body.len() {
            assert_eq!(message_pack(&body[..end]), Err(ScanError::Malformed), "{end}");
        }
        assert_eq!(message_pack(b"\x95\x03\xdf\xff\xff\xff\xff\xa1x"), Err(ScanError::Malformed));
    }

    #[test]
    fn a_number_names_one_kind_and_back() {
        for number in 0..20 {
            assert_eq!(MessageKind::from(number).number(), number);
        }
    }
}
