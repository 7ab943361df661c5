//! Log levels: `GET /api/log` returns them, `PUT /api/log` changes them until the node is started again.

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use crate::logging::{LEVELS_MAX_BYTES, Levels, levels};

/// Largest body: the levels with JSON around them.
const BODY_MAX_BYTES: usize = 2 * LEVELS_MAX_BYTES + 256;

/// Body of a request for other levels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevelChange {
    levels: String,
}

/// Routes of the log levels.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/api/log", get(current).put(change)).layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn current() -> Response {
    levels().map_or_else(not_ours, shown)
}

async fn change(body: Bytes) -> Response {
    let Some(levels) = levels() else { return not_ours() };
    let change: LogLevelChange = match serde_json::from_slice(&body) {
        Ok(change) => change,
        Err(error) => return refused(&format!("must be {{\"levels\": \"…\"}}, such as \"info\": {error}")),
    };
    let before = levels.text();
    if let Err(error) = levels.set(&change.levels) {
        return refused(&error.to_string());
    }
    info!(before, now = levels.text(), "other levels are logged");
    shown(levels)
}

fn shown(levels: &Levels) -> Response {
    Json(json!({ "levels": levels.text(), "format": levels.format().name() })).into_response()
}

fn refused(problem: &str) -> Response {
    let body = json!({ "error": format!("levels {problem}"), "field": "levels" });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// Answers for a node that is embedded in an app, whose log is the app's.
fn not_ours() -> Response {
    let body = json!({ "error": "the log is the app's, which this node is a part of", "field": null });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
