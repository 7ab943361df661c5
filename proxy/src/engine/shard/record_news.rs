//! Events of a record for readers without a hub protocol, as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
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
                NewsKind::Message(json_of(&position.to_string(), Some(&send.payloads)).to_string().into())
            }
            RecordEvent::Finished => NewsKind::Finished,
            RecordEvent::Deleted => NewsKind::Deleted,
        };
        Self { position, kind }
    }
}

/// Message of a page in JSON: `position`, `target` and `arguments`. A message that was sent without JSON has a position
/// only.
pub(crate) fn recorded_json(position: &str, message: &RecordedMessage) -> Value {
    json_of(position, payloads_of(message).as_ref())
}

fn json_of(position: &str, payloads: Option<&Payloads>) -> Value {
    let payload = payloads.and_then(|payloads| payloads.get(HubProtocol::Json));
    let item = payload.and_then(|payload| HubProtocol::Json.followed_item(position, payload).ok());
    let value = item.and_then(|item| HubProtocol::Json.value::<BTreeMap<String, Value>>(&item).ok());
    value.map_or_else(|| json!({ "position": position }), |value| json!(value))
}

pub(super) fn payloads_of(message: &RecordedMessage) -> Option<Payloads> {
    ServiceMessage::decode(&message.body).ok()??.payloads().cloned()
}
