//! Plain-text responses, and the cause of a refusal.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use trunkline_protocol::cause::Cause;

/// Seconds until a client should retry while no app server or node is available; they return within seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "2";

/// Notes on a response for this node; not sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseNotes {
    /// Cause of a refusal, where the status is not specific enough.
    pub cause: Option<Cause>,
    /// Text of a refusal.
    pub text: Option<Cow<'static, str>>,
    /// Set for responses of an app server or the data plane, which are not counted as refusals here.
    pub is_counted_elsewhere: bool,
    /// Whether an app server is refused, and no client.
    pub is_for_app_server: bool,
}

impl ResponseNotes {
    pub(crate) fn from_answer(answer: &Response) -> Self {
        answer.extensions().get().cloned().unwrap_or_default()
    }

    pub(crate) fn edit(answer: &mut Response) -> &mut Self {
        answer.extensions_mut().get_or_insert_default()
    }
}

pub(crate) fn plain(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Response {
    with_text((status, [(CONTENT_TYPE, "text/plain")]), text.into())
}

fn with_text(head: impl IntoResponse, text: Cow<'static, str>) -> Response {
    let mut answer = head.into_response();
    *answer.body_mut() = Body::from(text.clone());
    if !answer.status().is_success() {
        ResponseNotes::edit(&mut answer).text = Some(text);
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
    ResponseNotes::edit(&mut answer).cause = Some(cause);
    answer
}

/// Adds `Connection: close` to a response: later bytes of the connection can't be parsed reliably, or are meant for
/// another server.
pub(crate) fn closing(mut answer: Response) -> Response {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
