//! Log levels: `GET /api/log` returns them; `PUT /api/log` changes them until the node restarts.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use crate::edge::admin::guard::AdminContext;
use crate::ground::config::{LEVELS_MAX_BYTES, LogLevels};

/// Maximum body: the levels in JSON.
const BODY_MAX_BYTES: usize = 2 * LEVELS_MAX_BYTES + 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevelChange {
    levels: String,
}

pub(super) fn routes() -> Router<AdminContext> {
    Router::new().route("/api/log", get(current).put(change)).layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn current(State(context): State<AdminContext>) -> Response {
    context.log.map_or_else(not_ours, shown)
}

async fn change(State(context): State<AdminContext>, body: Bytes) -> Response {
    let Some(levels) = context.log else { return not_ours() };
    let change: LogLevelChange = match serde_json::from_slice(&body) {
        Ok(change) => change,
        Err(error) => return refused(&format!("must be {{\"levels\": \"…\"}}, such as \"info\": {error}")),
    };
    let before = levels.text();
    if let Err(error) = levels.set(&change.levels) {
        return refused(&error);
    }
    info!(before, now = levels.text(), "log levels changed");
    shown(levels)
}

fn shown(levels: &dyn LogLevels) -> Response {
    Json(json!({ "levels": levels.text(), "format": levels.format_name() })).into_response()
}

fn refused(problem: &str) -> Response {
    let body = json!({ "error": format!("levels {problem}"), "field": "levels" });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// Response of a node embedded in an app, which owns the log.
fn not_ours() -> Response {
    let body = json!({ "error": "this node is embedded in an app, which owns the log", "field": null });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
