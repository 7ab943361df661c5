//! Events of a record for readers without a hub protocol, as JSON.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{Payloads, Position, RecordedMessage, ServiceMessage};

use super::command::RecordEvent;

/// Event of a record, made once for all readers of a shard.
#[derive(Debug, Clone)]
pub(crate) struct RecordNews {
    pub(crate) position: Position,
    pub(crate) kind: NewsKind,
}

#[derive(Debug, Clone)]
pub(crate) enum NewsKind {
    /// The message as JSON in one line.
    Message(Arc<str>),
    Finished,
    Deleted,
}

impl RecordNews {
    pub(super) fn new(position: Position, event: &RecordEvent) -> Self {
        let kind = match event {
            RecordEvent::Message(send) => {
                NewsKind::Message(json_of(&position.to_string(), Some(&send.payloads)).get().into())
            }
            RecordEvent::Finished => NewsKind::Finished,
            RecordEvent::Deleted => NewsKind::Deleted,
        };
        Self { position, kind }
    }
}

/// Message of a page in JSON, in one line: `position`, `target` and `arguments`, with all digits of their numbers. A
/// message that was sent without JSON has a position only.
pub(crate) fn recorded_json(position: &str, message: &RecordedMessage) -> Box<RawValue> {
    json_of(position, payloads_of(message).as_ref())
}

fn json_of(position: &str, payloads: Option<&Payloads>) -> Box<RawValue> {
    let payload = payloads.and_then(|payloads| payloads.get(HubProtocol::Json));
    let item = payload.and_then(|payload| HubProtocol::Json.followed_item(position, payload).ok());
    let text = item.as_ref().and_then(|item| std::str::from_utf8(item.as_bytes()).ok()).map(in_one_line);
    // A raw value may have escapes or a depth that strict readers refuse, with all of its page.
    let text = text.filter(|text| serde_json::from_str::<Value>(text).is_ok());
    let raw = text.and_then(|text| RawValue::from_string(text.into_owned()).ok());
    raw.unwrap_or_else(|| {
        let position = serde_json::json!({ "position": position });
        serde_json::value::to_raw_value(&position).unwrap_or_default()
    })
}

/// Replaces line breaks, which are white space in JSON, by spaces.
fn in_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ").into() } else { text.into() }
}

pub(super) fn payloads_of(message: &RecordedMessage) -> Option<Payloads> {
    ServiceMessage::decode(&message.body).ok()??.payloads().cloned()
}
