//! Comparison of mirror replies with primary replies.
//!
//! ```text
//!  call forwarded and copied ──► waits for both ──► both have completed ──► equal, or a difference
//!                                     └─ one missing after a minute ─────► a difference
//! ```
//!
//! Only digests are stored: a difference is described by kinds and sizes. JSON replies are compared as values, ignoring
//! order and whitespace; MessagePack replies as bytes.

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use trunkline_protocol::hub::{HubMessage, HubProtocol, MessageKind, Outcome, Payload, whole_messages};

/// Maximum number of calls compared simultaneously per connection. Further calls are not compared.
const CALLS_MAX: usize = 64;

/// Maximum bytes of the id and of the method name of a compared call.
const NAME_MAX_BYTES: usize = 128;

/// Ticks within which both app servers have to reply.
const ANSWER_TICKS: u32 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answerer {
    Primary,
    Mirror,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerDifference {
    pub(super) target: Box<str>,
    pub(super) invocation_id: Box<str>,
    pub(super) primary: String,
    pub(super) mirror: String,
}

/// Compared calls of one connection.
#[derive(Debug, Default)]
pub(super) struct AnswerDiff(IndexMap<Box<str>, ComparedCall>);

#[derive(Debug)]
struct ComparedCall {
    target: Box<str>,
    begun: u32,
    primary: ComparedAnswer,
    mirror: ComparedAnswer,
}

/// Reply of one app server received so far.
#[derive(Debug, Default, PartialEq)]
struct ComparedAnswer {
    /// Number of stream items, and the digest of all of them in order.
    items: u64,
    items_digest: [u8; 32],
    end: Option<AnswerEnd>,
}

/// End of a reply. Its size is informative only, because equal values may differ in size.
#[derive(Debug)]
struct AnswerEnd {
    kind: &'static str,
    bytes: usize,
    digest: [u8; 32],
}

impl PartialEq for AnswerEnd {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.digest) == (other.kind, other.digest)
    }
}

impl AnswerDiff {
    /// Records the calls in messages that were forwarded to both.
    pub(super) fn begin(&mut self, protocol: HubProtocol, messages: &[u8], now: u32) {
        for message in whole_messages(protocol, messages) {
            let Ok(scan) = protocol.scan_call(message.body) else { continue };
            let (Some(id), Some(target)) = (scan.invocation_id, scan.target) else { continue };
            let fits = id.len() <= NAME_MAX_BYTES && target.len() <= NAME_MAX_BYTES;
            if scan.kind.is_call() && fits && self.0.len() < CALLS_MAX {
                let (primary, mirror) = Default::default();
                self.0.insert(id.into(), ComparedCall { target: target.into(), begun: now, primary, mirror });
            }
        }
    }

    /// Handles messages from an app server to the client. Returns the differences found.
    pub(super) fn take(&mut self, protocol: HubProtocol, from: Answerer, messages: &[u8]) -> Vec<AnswerDifference> {
        if self.0.is_empty() {
            return Vec::new();
        }
        whole_messages(protocol, messages).filter_map(|message| self.take_one(protocol, from, message.body)).collect()
    }

    fn take_one(&mut self, protocol: HubProtocol, from: Answerer, body: &[u8]) -> Option<AnswerDifference> {
        let scan = protocol.scan(body).ok()?;
        let id = scan.invocation_id?;
        if !matches!(scan.kind, MessageKind::StreamItem | MessageKind::Completion) {
            return None;
        }
        let call = self.0.get_mut(&*id)?;
        let answer = match from {
            Answerer::Primary => &mut call.primary,
            Answerer::Mirror => &mut call.mirror,
        };
        answer.add(protocol, body);
        if call.primary.end.is_none() || call.mirror.end.is_none() {
            return None;
        }
        let (id, call) = self.0.swap_remove_entry(&*id)?;
        call.difference(id)
    }

    /// Removes timed-out calls. Returns those with a reply from only one app server as differences.
    pub(super) fn take_late(&mut self, now: u32) -> Vec<AnswerDifference> {
        let late = self.0.extract_if(.., |_, call| now.saturating_sub(call.begun) >= ANSWER_TICKS);
        late.filter_map(|(id, call)| call.difference(id)).collect()
    }

    /// Drops all calls, because the mirror has missed messages, so that its replies can't be compared.
    pub(super) fn forget(&mut self) {
        self.0 = IndexMap::new();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }
}

impl ComparedCall {
    fn difference(self, invocation_id: Box<str>) -> Option<AnswerDifference> {
        let differ = self.primary != self.mirror;
        let (primary, mirror) = (self.primary.in_words(), self.mirror.in_words());
        differ.then_some(AnswerDifference { target: self.target, invocation_id, primary, mirror })
    }
}

impl ComparedAnswer {
    fn add(&mut self, protocol: HubProtocol, body: &[u8]) {
        match protocol.decode(&Bytes::copy_from_slice(body)) {
            Ok(Some(HubMessage::StreamItem(item))) => {
                self.items += 1;
                let hash = Sha256::new().chain_update(self.items_digest).chain_update(digest(protocol, &item.item));
                self.items_digest = hash.finalize().into();
            }
            Ok(Some(HubMessage::Completion(completion))) => {
                let (kind, bytes, digest) = match &completion.outcome {
                    Outcome::Void => ("nothing", 0, [0; 32]),
                    Outcome::Value(value) => ("a result", value.as_bytes().len(), digest(protocol, value)),
                    Outcome::Error(text) => ("an error", text.len(), Sha256::digest(text.as_bytes()).into()),
                };
                self.end = Some(AnswerEnd { kind, bytes, digest });
            }
            _ => {}
        }
    }

    fn in_words(&self) -> String {
        let end = match &self.end {
            Some(AnswerEnd { kind, bytes: 0, .. }) => (*kind).to_owned(),
            Some(AnswerEnd { kind, bytes, .. }) => format!("{kind} of {bytes} bytes"),
            None => "no answer".to_owned(),
        };
        if self.items == 0 { end } else { format!("{} stream items and {end}", self.items) }
    }
}

/// Digest of a value, independent of formatting if the protocol permits.
fn digest(protocol: HubProtocol, value: &Payload) -> [u8; 32] {
    let bytes = value.as_bytes();
    if protocol == HubProtocol::Json
        && let Ok(value) = serde_json::from_slice::<Value>(bytes)
    {
        let mut hash = Sha256::new();
        add_value(&mut hash, &value);
        return hash.finalize().into();
    }
    Sha256::digest(bytes).into()
}

/// Adds a value to a digest, with sorted object keys. The parser limits the depth.
fn add_value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Array(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| add_value(hash, item));
            hash.update(b"]");
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            hash.update(b"{");
            for (key, value) in members {
                hash.update(Value::from(key.as_str()).to_string());
                add_value(hash, value);
            }
            hash.update(b"}");
        }
        plain => {
            hash.update(plain.to_string());
            hash.update(b",");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"type":1,"invocationId":"1","target":"Sum","arguments":[]};"#;

    fn up(diff: &mut AnswerDiff, text: &str) {
        diff.begin(HubProtocol::Json, text.replace(';', "\u{1e}").as_bytes(), 0);
    }

    fn down(diff: &mut AnswerDiff, from: Answerer, text: &str) -> Vec<String> {
        let seen = diff.take(HubProtocol::Json, from, text.replace(';', "\u{1e}").as_bytes());
        seen.into_iter().map(|one| format!("{}: {} / {}", one.target, one.primary, one.mirror)).collect()
    }

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        let mut diff = AnswerDiff::default();
        up(&mut diff, CALL);
        let primary = r#"{"type":3,"invocationId":"1","result":{"a":1,"b":[2]}};"#;
        assert_eq!(down(&mut diff, Answerer::Primary, primary), [""; 0]);
        let mirror = r#"{"invocationId":"1","result":{"b":[ 2 ],"a":1},"type":3};"#;
        assert_eq!(down(&mut diff, Answerer::Mirror, mirror), [""; 0]);
        assert!(diff.is_idle());
    }

    #[test]
    fn another_result_an_error_and_another_stream_are_differences_in_either_order() {
        let mut diff = AnswerDiff::default();
        let result = |value: &str| format!(r#"{{"type":3,"invocationId":"1","result":{value}}};"#);
        up(&mut diff, CALL);
        down(&mut diff, Answerer::Mirror, &result("10"));
        assert_eq!(
            down(&mut diff, Answerer::Primary, &result("9")),
            ["Sum: a result of 1 bytes / a result of 2 bytes"]
        );
        up(&mut diff, CALL);
        down(&mut diff, Answerer::Primary, &result("9"));
        let error = r#"{"type":3,"invocationId":"1","error":"no"};"#;
        assert_eq!(down(&mut diff, Answerer::Mirror, error), ["Sum: a result of 1 bytes / an error of 2 bytes"]);
        up(&mut diff, &CALL.replace("\"type\":1", "\"type\":4"));
        let item = |value: &str| format!(r#"{{"type":2,"invocationId":"1","item":{value}}};"#);
        let end = r#"{"type":3,"invocationId":"1"};"#;
        down(&mut diff, Answerer::Primary, &format!("{}{}{end}", item("1"), item("2")));
        let other_order = format!("{}{}{end}", item("2"), item("1"));
        assert_eq!(
            down(&mut diff, Answerer::Mirror, &other_order),
            ["Sum: 2 stream items and nothing / 2 stream items and nothing"]
        );
    }

    #[test]
    fn a_reply_of_only_one_app_server_becomes_a_difference_and_a_missing_reply_does_not() {
        let mut diff = AnswerDiff::default();
        up(&mut diff, &format!("{CALL}{}", CALL.replace("\"1\"", "\"2\"")));
        down(&mut diff, Answerer::Primary, r#"{"type":3,"invocationId":"1"};"#);
        assert_eq!(diff.take_late(ANSWER_TICKS - 1), []);
        let late = diff.take_late(ANSWER_TICKS);
        assert_eq!(late.len(), 1, "{late:?}");
        assert_eq!((&*late[0].primary, &*late[0].mirror), ("nothing", "no answer"));
        assert!(diff.is_idle());
    }

    #[test]
    fn answers_in_message_pack_are_compared_too() {
        let call = [&[0x90 | 6, 1, 0x80][..], &[0xa1, b'1', 0xa1, b'S', 0x90, 0x90]].concat();
        let framed = |body: &[u8]| [&[u8::try_from(body.len()).unwrap()][..], body].concat();
        let answer = |value: u8| framed(&[0x95, 3, 0x80, 0xa1, b'1', 3, value]);
        let mut diff = AnswerDiff::default();
        diff.begin(HubProtocol::MessagePack, &framed(&call), 0);
        assert_eq!(diff.take(HubProtocol::MessagePack, Answerer::Primary, &answer(1)), []);
        assert_eq!(diff.take(HubProtocol::MessagePack, Answerer::Mirror, &answer(2)).len(), 1);
    }

    #[test]
    fn the_calls_that_wait_are_bounded() {
        let mut diff = AnswerDiff::default();
        for number in 0..2 * CALLS_MAX {
            up(&mut diff, &CALL.replace("\"1\"", &format!("\"{number}\"")));
        }
        assert_eq!(diff.0.len(), CALLS_MAX);
        up(&mut diff, &CALL.replace("Sum", &"x".repeat(NAME_MAX_BYTES + 1)));
        assert_eq!(diff.0.len(), CALLS_MAX);
    }
}
