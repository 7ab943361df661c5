//! Scan of a call for the operator's rules: kind, invocation id, method and streams, without arguments.
//!
//! Accepts at least everything that any app server accepts, so every method that might run is found.

use std::borrow::Cow;

use rmp::decode::{read_array_len, read_str_len};

use super::members::{self, Members};
use super::scan::{NIL, json_text, pack_kind, skip_headers};
use super::{MessageKind, ScanError};
use crate::message_pack::skip_value;

/// Items of a MessagePack invocation before its stream ids.
const ITEMS_BEFORE_STREAM_IDS: u32 = 5;

/// Part of a message that call rules inspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallScan<'a> {
    /// Kind of the message.
    pub kind: MessageKind,
    /// Invocation id, unless missing or empty.
    pub invocation_id: Option<Cow<'a, str>>,
    /// Method name, if the message is a call with one.
    pub target: Option<Cow<'a, str>>,
    /// Ids of the client's streams for the call; empty if unreadable.
    pub stream_ids: Vec<Cow<'a, str>>,
}

impl CallScan<'_> {
    fn of_kind(kind: MessageKind) -> Self {
        Self { kind, invocation_id: None, target: None, stream_ids: Vec::new() }
    }
}

impl MessageKind {
    /// Whether messages of this kind call a method.
    #[must_use]
    pub fn is_call(self) -> bool {
        matches!(self, Self::Invocation | Self::StreamInvocation)
    }
}

// Scans to the end even if everything is found: the last of two equal keys counts.
pub(super) fn json(body: &[u8]) -> Result<CallScan<'_>, ScanError> {
    let (mut kind, mut invocation_id, mut target, mut stream_ids) = (None, None, None, None);
    for member in Members::of_any_depth(body)? {
        let member = member?;
        match &*member.key {
            "type" => kind = Some(member.value),
            "invocationId" => invocation_id = Some(member.value),
            "target" => target = Some(member.value),
            "streamIds" => stream_ids = Some(member.value),
            _ => {}
        }
    }
    let number = members::integer(kind.ok_or(ScanError::NoKind)?).ok_or(ScanError::Malformed)?;
    let kind = MessageKind::from(number);
    let mut scan = CallScan::of_kind(kind);
    if kind.has_invocation_id() {
        scan.invocation_id = json_text(invocation_id)?;
    }
    if kind.is_call() {
        scan.target = json_text(target)?;
        scan.stream_ids = stream_ids.and_then(members::texts).unwrap_or_default();
    }
    Ok(scan)
}

pub(super) fn message_pack(body: &[u8]) -> Result<CallScan<'_>, ScanError> {
    let (kind, items, rest) = pack_kind(body)?;
    let mut scan = CallScan::of_kind(kind);
    if !kind.has_invocation_id() {
        return Ok(scan);
    }
    let mut rest = skip_headers(rest).ok_or(ScanError::Malformed)?;
    scan.invocation_id = take_text(&mut rest).ok_or(ScanError::Malformed)?;
    if kind.is_call() {
        scan.target = take_text(&mut rest).ok_or(ScanError::Malformed)?;
        if items > ITEMS_BEFORE_STREAM_IDS {
            scan.stream_ids = stream_ids(rest).unwrap_or_default();
        }
    }
    Ok(scan)
}

/// Reads a string or nil; an empty string yields `None`. Invalid UTF-8 is decoded as in .NET.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<Option<Cow<'a, str>>> {
    if let [NIL, after @ ..] = *rest {
        *rest = after;
        return Some(None);
    }
    let mut bytes = *rest;
    let length = read_str_len(&mut bytes).ok()?;
    let (text, after) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(String::from_utf8_lossy(text)).filter(|text| !text.is_empty()))
}

/// Reads the stream ids after the arguments. Allocates only for ids that are present.
fn stream_ids(arguments: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    let mut rest = skip_value(arguments).ok()?;
    if let [NIL, ..] = rest {
        return None;
    }
    let count = read_array_len(&mut rest).ok()?;
    (0..count).map(|_| take_text(&mut rest).map(Option::unwrap_or_default)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(kind: MessageKind, id: &'a str, target: &'a str, streams: &[&'a str]) -> CallScan<'a> {
        let text = |text: &'a str| Some(Cow::Borrowed(text)).filter(|text| !text.is_empty());
        let stream_ids = streams.iter().copied().map(Cow::Borrowed).collect();
        CallScan { kind, invocation_id: text(id), target: text(target), stream_ids }
    }

    #[test]
    fn target_and_streams_are_found_in_any_position() {
        let expected = Ok(call(MessageKind::Invocation, "0", "Add", &["s1", "s2"]));
        assert_eq!(json(br#"{"target":"Add","streamIds":["s1","s2"],"invocationId":"0","type":1}"#), expected);
        assert_eq!(
            json(br#"{ "type" : 1, "arguments":[{"target":"x"}], "invocationId":"0","streamIds": [ "s1" ,"s2"],"target":"Add"}"#),
            expected
        );
        assert_eq!(message_pack(b"\x96\x01\x80\xa10\xa3Add\x91\x92\x01\xa1x\x92\xa2s1\xa2s2"), expected);
    }

    #[test]
    fn escapes_and_repeated_keys_hide_no_target() {
        let expected = Ok(call(MessageKind::Invocation, "", "Debug", &[]));
        assert_eq!(json(br#"{"type":1,"target":"De\u0062ug"}"#), expected);
        assert_eq!(json(br#"{"type":1,"target":"Say","t\u0061rget":"Debug"}"#), expected);
        assert_eq!(json(br#"{"type":1,"target":"Debug","streamIds":[7]}"#), expected, "its streams can't be read");
        // .NET accepts a header without a value, and an invocation id in invalid UTF-8.
        assert_eq!(message_pack(b"\x95\x01\x81\xa1x\xc0\xc0\xa5Debug\x90"), expected);
        assert_eq!(message_pack(b"\x95\x01\x80\xa1\xff\xa5Debug\x90").unwrap().target.unwrap(), "Debug");
    }

    #[test]
    fn streams_after_unreadable_arguments_are_empty() {
        let expected = Ok(call(MessageKind::StreamInvocation, "1", "x", &[]));
        assert_eq!(message_pack(b"\x96\x04\x80\xa11\xa1x\x92\x01"), expected);
        assert_eq!(message_pack(b"\x96\x04\x80\xa11\xa1x\x90\xc0"), expected);
        assert_eq!(message_pack(b"\x96\x04\x80\xa11\xa1x\x90\xdd\xff\xff\xff\xff"), expected);
    }

    #[test]
    fn other_kinds_have_no_target() {
        assert_eq!(
            json(br#"{"type":3,"invocationId":"1","target":"x"}"#),
            Ok(call(MessageKind::Completion, "1", "", &[]))
        );
        assert_eq!(json(br#"{"type":6,"target":"x"}"#), Ok(call(MessageKind::Ping, "", "", &[])));
        assert_eq!(message_pack(b"\x93\x05\x80\xa11"), Ok(call(MessageKind::CancelInvocation, "1", "", &[])));
        assert_eq!(message_pack(b"\x91\x06"), Ok(call(MessageKind::Ping, "", "", &[])));
    }

    #[test]
    fn a_call_with_an_unreadable_target_is_malformed() {
        assert_eq!(json(br#"{"type":1,"target":7}"#), Err(ScanError::Malformed));
        assert_eq!(json(b"{}"), Err(ScanError::NoKind));
        assert_eq!(message_pack(b"\x95\x01\x80\xc0\x07\x90"), Err(ScanError::Malformed));
        assert_eq!(message_pack(b"\x95\x01\xdf\xff\xff\xff\xff\xa1x"), Err(ScanError::Malformed));
        assert_eq!(message_pack(b"\x90"), Err(ScanError::NoKind));
    }
}
