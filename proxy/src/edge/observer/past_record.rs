//! Record of a client connection for diagnosis: open, closed and why, or refused and why.

use serde_json::{Value, json};

use crate::engine::shard::{PastConnection, short};
use crate::ground::metrics::ClientProtocol;

pub(super) fn open(id: &str, node: &str) -> Value {
    json!({ "connectionId": short(id), "state": "open", "node": node })
}

pub(super) fn ended(past: &PastConnection<'_>, node: &str) -> Value {
    json!({
        "connectionId": past.id,
        "state": if past.opened_ms.is_some() { "closed" } else { "refused" },
        "cause": past.cause.label(),
        "text": past.cause.text(),
        "detail": past.detail,
        "node": node,
        "hub": past.hub,
        "transport": past.transport.map(|transport| transport.name()),
        "protocol": past.protocol.map(ClientProtocol::label),
        "user": past.user,
        "remoteAddress": past.remote,
        "userAgent": past.user_agent,
        "appServer": past.app_server.as_deref(),
        "openedMs": past.opened_ms,
        "closedMs": past.closed_ms,
    })
}
