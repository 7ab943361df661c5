//! Error responses: JSON with a text for people and the affected field.

use std::fmt;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use trunkline_protocol::id::ID_CHARS;

/// Maximum characters of an unknown hub's name in an error.
const HUB_MAX_CHARS: usize = 100;

/// Suggested wait of a busy node, in seconds.
const RETRY_S: u16 = 1;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: String,
    field: Option<String>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), field: None, header: None }
    }

    /// Error of one field; the text is worded to follow its name.
    pub(crate) fn field(field: &str, problem: impl fmt::Display) -> Self {
        let text = format!("{field} {problem}");
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, text) }
    }

    /// Error of a body that is too large or incomplete.
    pub(crate) fn unread_body(rejection: &BytesRejection, max_bytes: usize) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let problem = format!("is too large: at most {max_bytes} bytes are allowed");
                Self::field("body", problem).with_status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            status => Self::field("body", "could not be read").with_status(status),
        }
    }

    /// Error of a request above a limit that a later one may be within.
    pub(crate) fn busy(text: String) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, text).with_header(RETRY_AFTER, HeaderValue::from(RETRY_S))
    }

    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "this node is stopping")
    }

    pub(crate) fn unknown_client(id: &str) -> Self {
        let shown: String = id.chars().take(ID_CHARS).collect();
        Self::new(StatusCode::NOT_FOUND, format!("no reachable node has a client connection {shown:?}"))
    }

    pub(crate) fn unknown_hub(hub: Option<&str>) -> Self {
        let shown: String = hub.unwrap_or_default().chars().take(HUB_MAX_CHARS).collect();
        Self::new(StatusCode::NOT_FOUND, format!("no reachable node has a hub {shown:?}"))
    }

    #[must_use]
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    #[must_use]
    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.text, "field": self.field }))).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
