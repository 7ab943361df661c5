//! Plain-text responses, and the cause of a refusal.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use trunkline_protocol::cause::Cause;

/// Seconds until a client should retry while no app server or node is available; they return within seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "2";

/// Text of a refusal, attached to the response for the condition that reports refusals.
#[derive(Debug, Clone)]
pub(crate) struct RefusalText(pub Cow<'static, str>);

pub(crate) fn plain(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Response {
    with_text((status, [(CONTENT_TYPE, "text/plain")]), text.into())
}

fn with_text(head: impl IntoResponse, text: Cow<'static, str>) -> Response {
    let mut answer = head.into_response();
    *answer.body_mut() = Body::from(text.clone());
    if !answer.status().is_success() {
        answer.extensions_mut().insert(RefusalText(text));
    }
    answer
}

/// Creates a response that asks the client to retry soon.
pub(crate) fn unavailable(cause: Cause, text: impl Into<Cow<'static, str>>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain"), (RETRY_AFTER, RETRY_AFTER_SECONDS)];
    because(cause, with_text((StatusCode::SERVICE_UNAVAILABLE, headers), text.into()))
}

/// Attaches a cause to a refusal, where the status is not specific enough.
pub(crate) fn because(cause: Cause, mut answer: Response) -> Response {
    answer.extensions_mut().insert(cause);
    answer
}
