//! What is wrong with a request, as JSON: a text for people, and the field that it is about.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why something is not done.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: String,
    field: Option<String>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// One that is about the request as a whole.
    #[must_use]
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), field: None, header: None }
    }

    /// A field is wrong: the text goes on behind its name.
    #[must_use]
    pub(crate) fn field(field: &str, problem: &str) -> Self {
        let text = format!("{field} {problem}");
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, text) }
    }

    /// The node stops while it is asked.
    #[must_use]
    pub(crate) fn ending() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "this node is stopping")
    }

    /// The same, with another status.
    #[must_use]
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same, with a header.
    #[must_use]
    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    #[must_use]
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
