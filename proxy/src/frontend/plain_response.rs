//! Plain-text responses, and the cause that a refusal names.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use trunkline_protocol::cause::Cause;

/// Seconds after which a client may try again while there is no app server or node for it; they come back within
/// seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "2";

/// Makes a short answer in plain text.
pub(crate) fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain")], text.into()).into_response()
}

/// Makes an answer that asks the client to try again soon.
pub(crate) fn unavailable(cause: Cause, text: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain"), (RETRY_AFTER, RETRY_AFTER_SECONDS)];
    because(cause, (StatusCode::SERVICE_UNAVAILABLE, headers, text.into()).into_response())
}

/// Names the cause of a refusal whose status does not tell it.
pub(crate) fn because(cause: Cause, mut answer: Response) -> Response {
    answer.extensions_mut().insert(cause);
    answer
}
