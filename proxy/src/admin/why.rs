//! `GET /api/why/{connectionId}`: why a client connection ended, or was refused, in the last minutes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::counters::Speech;
use crate::shard::{PastConnection, REMEMBERED_MS, Shared, short};

/// Longest id that is looked for: in negotiate version 0 it is the sealed token.
const ID_MAX_BYTES: usize = 16 * 1024;

/// The routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(shared: Arc<Shared>) -> Router<S> {
    Router::new().route("/api/why/{connection_id}", get(why)).with_state(shared)
}

async fn why(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let node = shared.settings.node.as_str();
    if id.len() > ID_MAX_BYTES {
        let body =
            json!({ "error": format!("connectionId may have {ID_MAX_BYTES} bytes at most"), "field": "connectionId" });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    if shared.routes.find(&id).is_some() {
        return Json(json!({ "connectionId": short(&id), "state": "open", "node": node })).into_response();
    }
    match shared.past(&id) {
        Some(past) => Json(told(&past, node)).into_response(),
        None => {
            let text = format!(
                "this node knows of no connection with that id that ended in the last {} minutes",
                REMEMBERED_MS / 60_000
            );
            (StatusCode::NOT_FOUND, Json(json!({ "error": text, "field": "connectionId" }))).into_response()
        }
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
