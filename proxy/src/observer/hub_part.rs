//! Splits a client's transport data into single messages with their names. Pure.

use bytes::Bytes;
use trunkline_protocol::hub::{HubMessage, HubProtocol, MessageKind, whole_messages};

use crate::watch::kind_name;

/// Maximum size of a message that is parsed.
const READ_MAX_BYTES: usize = 1024 * 1024;

/// One hub message and its bytes.
#[derive(Debug)]
pub struct HubPart {
    /// All bytes, framing included.
    pub whole: Bytes,
    /// Kind of message; `large` if not parsed, `other` if unreadable.
    pub kind: &'static str,
    /// Method name, if the message has one.
    pub target: Option<String>,
    /// Id of the invocation or stream.
    pub invocation_id: Option<String>,
    pub(super) message: Option<HubMessage>,
}

/// Splits complete messages off the front of `bytes`. Skips pings, acknowledgements and close messages, which each side
/// generates itself.
#[must_use]
pub fn take_parts(protocol: HubProtocol, bytes: &mut Bytes) -> Vec<HubPart> {
    let all = bytes.clone();
    let parts = whole_messages(protocol, &all).filter_map(|message| {
        let whole = bytes.split_to(message.whole.len());
        part(protocol, whole, &all.slice_ref(message.body))
    });
    parts.collect()
}

fn part(protocol: HubProtocol, whole: Bytes, body: &Bytes) -> Option<HubPart> {
    let (target, invocation_id) = (None, None);
    if whole.len() > READ_MAX_BYTES {
        return Some(HubPart { whole, kind: "large", target, invocation_id, message: None });
    }
    let Some(message) = protocol.decode(body).ok().flatten() else {
        return Some(HubPart { whole, kind: "other", target, invocation_id, message: None });
    };
    if is_left_out(message.kind()) {
        return None;
    }
    let target = match &message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => Some(call.target.to_string()),
        _ => None,
    };
    let invocation_id = message.invocation_id().map(ToString::to_string);
    Some(HubPart { whole, kind: kind_name(message.kind()), target, invocation_id, message: Some(message) })
}

fn is_left_out(kind: MessageKind) -> bool {
    matches!(kind, MessageKind::Ping | MessageKind::Close | MessageKind::Ack | MessageKind::Sequence)
}
