//! Why a client connection ended, or was refused, in the last minutes: of this node, or of whichever node remembers it.

use axum::http::Method;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Observer;
use super::listing::quoted;
use crate::metrics::Speech;
use crate::shard::{PastConnection, short};

impl Observer {
    /// What this node knows of it: that it is open, how it ended, or nothing.
    pub(crate) fn past_here(&self, id: &str) -> Option<Value> {
        let shared = &self.admin.shared;
        let node = shared.settings.node.as_str();
        if shared.routes.find(id).is_some() {
            return Some(json!({ "connectionId": short(id), "state": "open", "node": node }));
        }
        shared.past(id).map(|past| told(&past, node))
    }

    /// What any node knows of it.
    pub(crate) async fn past(&self, id: &str) -> Option<Value> {
        if let Some(here) = self.past_here(id) {
            return Some(here);
        }
        let target = format!("/api/why/{}?scope=node", quoted(id));
        let answers = self.peers().ask_all(Method::GET, &target, &Bytes::new()).await;
        answers.iter().flatten().find_map(|answer| answer.read().ok())
    }
}

fn told(past: &PastConnection, node: &str) -> Value {
    json!({
        "connectionId": past.id,
        "state": if past.opened_ms.is_some() { "closed" } else { "refused" },
        "cause": past.cause.label(),
        "text": past.cause.text(),
        "detail": past.detail,
        "node": node,
        "hub": past.hub,
        "transport": past.transport.map(|transport| transport.name()),
        "protocol": past.speech.map(Speech::label),
        "user": past.user,
        "remoteAddress": past.remote,
        "userAgent": past.user_agent,
        "appServer": past.app_server.as_deref(),
        "openedMs": past.opened_ms,
        "closedMs": past.closed_ms,
    })
}
