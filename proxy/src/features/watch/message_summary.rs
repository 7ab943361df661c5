//! Summaries of watched messages: kind, method, size, and the payload on request. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_protocol::hub::{HubMessage, HubProtocol, MessageKind, Outcome, Payload, whole_messages};

use super::redaction;
use crate::engine::shard::Content;

/// Maximum size of a parsed message. Parsing larger ones would delay the shard, so they show only their size.
const READ_MAX_BYTES: usize = 64 * 1024;

/// Maximum number of characters of a watched payload.
const TEXT_MAX_CHARS: usize = 2_000;

/// Maximum number of characters of a watched name.
const NAME_MAX_CHARS: usize = 200;

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MessageDirection {
    /// From the client to its app server.
    Up,
    /// From an app server to the client.
    Down,
}

#[derive(Debug, Clone)]
pub(crate) struct MessageSummary {
    pub kind: &'static str,
    pub target: Option<String>,
    pub invocation_id: Option<String>,
    pub bytes: u64,
    pub payload: Option<String>,
}

impl MessageSummary {
    pub(super) fn is_answered_call(&self) -> bool {
        let is_call = [MessageKind::Invocation, MessageKind::StreamInvocation].map(kind_name).contains(&self.kind);
        is_call && self.invocation_id.is_some()
    }

    /// Whether the message completes a call.
    pub(super) fn is_answer(&self) -> bool {
        self.kind == kind_name(MessageKind::Completion)
    }

    /// Whether the message is a reply or part of one.
    pub(super) fn is_of_reply(&self) -> bool {
        self.is_answer() || self.kind == kind_name(MessageKind::StreamItem)
    }

    /// Bytes of its text fields.
    pub(super) fn text_bytes(&self) -> usize {
        let texts = [&self.target, &self.invocation_id, &self.payload];
        texts.into_iter().flatten().map(String::len).sum()
    }

    fn with_bytes(kind: &'static str, bytes: usize) -> Self {
        Self { kind, target: None, invocation_id: None, bytes: bytes as u64, payload: None }
    }
}

pub(super) fn summaries(content: Content, messages: &Bytes, with_payloads: bool) -> Vec<MessageSummary> {
    match content {
        Content::Raw => vec![raw(messages, with_payloads)],
        Content::Hub(protocol) => of_hub(protocol, messages, with_payloads),
    }
}

fn raw(message: &Bytes, with_payloads: bool) -> MessageSummary {
    let payload = || match std::str::from_utf8(message) {
        Ok(text) if message.len() <= READ_MAX_BYTES => shown(&redaction::text(text)),
        _ => format!("({} bytes)", message.len()),
    };
    MessageSummary { payload: with_payloads.then(payload), ..MessageSummary::with_bytes("raw", message.len()) }
}

fn of_hub(protocol: HubProtocol, messages: &Bytes, with_payloads: bool) -> Vec<MessageSummary> {
    let read = whole_messages(protocol, messages)
        .map(|message| hub_message(protocol, &messages.slice_ref(message.body), message.whole.len(), with_payloads));
    read.collect()
}

fn hub_message(protocol: HubProtocol, body: &Bytes, bytes: usize, with_payloads: bool) -> MessageSummary {
    if body.len() > READ_MAX_BYTES {
        return MessageSummary::with_bytes("large", bytes);
    }
    // A hub handshake response has no kind.
    let Ok(Some(message)) = protocol.decode(body) else { return MessageSummary::with_bytes("other", bytes) };
    MessageSummary {
        target: match &message {
            HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
                Some(cut(&call.target, NAME_MAX_CHARS))
            }
            _ => None,
        },
        invocation_id: message.invocation_id().map(|id| cut(id, NAME_MAX_CHARS)),
        payload: if with_payloads { payload(protocol, &message) } else { None },
        ..MessageSummary::with_bytes(kind_name(message.kind()), bytes)
    }
}

fn kind_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Invocation => "invocation",
        MessageKind::StreamItem => "stream item",
        MessageKind::Completion => "completion",
        MessageKind::StreamInvocation => "stream invocation",
        MessageKind::CancelInvocation => "cancel",
        MessageKind::Ping => "ping",
        MessageKind::Close => "close",
        MessageKind::Ack => "ack",
        MessageKind::Sequence => "sequence",
        _ => "other",
    }
}

fn payload(protocol: HubProtocol, message: &HubMessage) -> Option<String> {
    let value = |payload: &Payload| match protocol.value::<Value>(payload) {
        Ok(value) => redaction::value(value),
        Err(_) => Value::String(format!("({} bytes)", payload.as_bytes().len())),
    };
    let told = match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            Value::Array(call.arguments.iter().map(value).collect())
        }
        HubMessage::StreamItem(item) => value(&item.item),
        HubMessage::Completion(completion) => match &completion.outcome {
            Outcome::Void => return None,
            Outcome::Value(result) => value(result),
            Outcome::Error(error) => return Some(shown(&format!("error: {}", redaction::text(error)))),
        },
        HubMessage::Close(close) => return close.error.as_ref().map(|error| shown(&redaction::text(error))),
        _ => return None,
    };
    Some(shown(&told.to_string()))
}

fn shown(text: &str) -> String {
    cut(text, TEXT_MAX_CHARS)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use trunkline_protocol::hub::{Completion, Invocation};

    use super::*;

    const PROTOCOLS: [HubProtocol; 2] = [HubProtocol::Json, HubProtocol::MessagePack];

    fn call(protocol: HubProtocol, argument: &str) -> HubMessage {
        HubMessage::Invocation(Invocation {
            target: "Say".into(),
            invocation_id: Some("7".into()),
            arguments: vec![protocol.payload(argument).unwrap(), protocol.payload(&1).unwrap()],
            ..Invocation::default()
        })
    }

    fn encoded(protocol: HubProtocol, messages: &[HubMessage]) -> Bytes {
        let mut out = BytesMut::new();
        messages.iter().for_each(|message| protocol.encode(message, &mut out));
        out.freeze()
    }

    #[test]
    fn messages_in_one_frame_are_summed_up_one_by_one_in_both_protocols() {
        for protocol in PROTOCOLS {
            let outcome = Outcome::Error("no".into());
            let end = Completion { invocation_id: "7".into(), headers: Vec::new(), outcome };
            let bytes = encoded(protocol, &[call(protocol, "hello"), HubMessage::Completion(end), HubMessage::Ping]);
            let told = summaries(Content::Hub(protocol), &bytes, true);
            let kinds: Vec<_> = told.iter().map(|message| message.kind).collect();
            assert_eq!(kinds, ["invocation", "completion", "ping"]);
            assert_eq!((told[0].target.as_deref(), told[0].invocation_id.as_deref()), (Some("Say"), Some("7")));
            assert_eq!(told[0].payload.as_deref(), Some(r#"["hello",1]"#));
            assert_eq!(told[1].payload.as_deref(), Some("error: no"));
            assert_eq!(told.iter().map(|message| message.bytes).sum::<u64>(), bytes.len() as u64);
            assert!(summaries(Content::Hub(protocol), &bytes, false).iter().all(|message| message.payload.is_none()));
        }
    }

    #[test]
    fn long_payloads_are_cut_and_large_or_unknown_messages_show_their_size() {
        let protocol = HubProtocol::Json;
        let told = summaries(Content::Hub(protocol), &encoded(protocol, &[call(protocol, &"ä".repeat(9_000))]), true);
        assert_eq!(told[0].payload.as_ref().unwrap().chars().count(), TEXT_MAX_CHARS + 1);
        let told =
            summaries(Content::Hub(protocol), &encoded(protocol, &[call(protocol, &"a".repeat(READ_MAX_BYTES))]), true);
        assert_eq!((told[0].kind, told[0].payload.as_deref()), ("large", None));
        let told = summaries(Content::Hub(protocol), &Bytes::from_static(b"nonsense\x1e{}\x1e"), true);
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|message| message.kind == "other" && message.payload.is_none()));
        let told = summaries(Content::Raw, &Bytes::from_static(b"\xff\xfe"), true);
        assert_eq!(told[0].payload.as_deref(), Some("(2 bytes)"));
    }
}
