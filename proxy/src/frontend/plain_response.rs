//! Plain-text responses, and the cause of a refusal.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use trunkline_protocol::cause::Cause;

/// Seconds until a client should retry while no app server or node is available; they return within seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "2";

pub(crate) fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain")], text.into()).into_response()
}

/// Creates a response that asks the client to retry soon.
pub(crate) fn unavailable(cause: Cause, text: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain"), (RETRY_AFTER, RETRY_AFTER_SECONDS)];
    because(cause, (StatusCode::SERVICE_UNAVAILABLE, headers, text.into()).into_response())
}

/// Attaches a cause to a refusal, where the status is not specific enough.
pub(crate) fn because(cause: Cause, mut answer: Response) -> Response {
    answer.extensions_mut().insert(cause);
    answer
}
