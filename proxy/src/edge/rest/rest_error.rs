//! Error responses of the data plane: status, a code in the format of Azure's service, and an actionable text.

use std::fmt;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use crate::ground::limits::{TableFull, TooFast};

/// Header with an error code, by which an SDK distinguishes a missing resource from a wrong URL.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// Header listing the nodes without an answer.
const MISSING_NODES: HeaderName = HeaderName::from_static("x-trunkline-missing-nodes");

/// Seconds until a busy node should be retried.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

#[derive(Debug)]
pub(crate) struct RestError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Part of the request with the error.
    target: Option<&'static str>,
    headers: HeaderMap,
}

impl RestError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), target: None, headers: HeaderMap::new() }
    }

    /// Creates a 503 error with `Retry-After`: the request may succeed in a second.
    fn temporary(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with_header(RETRY_AFTER, Some(RETRY_AFTER_SECONDS))
    }

    /// Creates the error of one value; the text is worded to follow its name.
    pub(crate) fn bad_value(name: &'static str, problem: impl fmt::Display) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "Error.Request.Invalid", format!("the {name} {problem}"));
        Self { target: Some(name), ..error }
    }

    pub(super) fn unknown_member(name: &str, allowed: &str) -> Self {
        let name: String = name.chars().take(100).collect();
        Self::bad_value("body", format!("has an unknown member {name:?}; its members are {allowed}"))
    }

    pub(super) fn too_fast(TooFast { retry_after }: TooFast) -> Self {
        let text = "the app has used up its rate of messages or bytes: see --app-messages-per-second and \
                    --app-bytes-per-second";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "Error.App.TooFast", text);
        error.with_header(RETRY_AFTER, Some(HeaderValue::from(retry_after.as_secs() + 1)))
    }

    pub(super) fn no_such_path() -> Self {
        let text = "there is no such operation: /api/openapi.json lists all";
        Self::new(StatusCode::NOT_FOUND, "Error.Path.NotExisted", text)
    }

    pub(super) fn not_allowed(allowed: &'static str) -> Self {
        let text = format!("this path takes {allowed}");
        let methods = allowed.split([',', ' ']).filter(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
        let methods: Vec<_> = methods.filter(|word| !word.is_empty()).collect();
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "Error.Method.NotAllowed", text);
        error.with_header(ALLOW, HeaderValue::from_str(&methods.join(", ")).ok())
    }

    pub(super) fn unauthorized(problem: &str) -> Self {
        let text = format!(
            "{problem}: send 'Authorization: Bearer TOKEN' with a token by `trunkline token rest`, or a JWT that an \
             access key of the fleet or a key of the hub's app signs with HS256 and whose audience is the URL of the \
             request"
        );
        let error = Self::new(StatusCode::UNAUTHORIZED, "Error.Token.Invalid", text);
        error.with_header(WWW_AUTHENTICATE, Some(HeaderValue::from_static("Bearer")))
    }

    pub(super) fn busy(max: usize) -> Self {
        let text = format!("this node has reached its limit of {max} concurrent requests: see --rest-requests-max");
        Self::temporary("Error.Node.Busy", text)
    }

    pub(super) fn too_many_calls(full: &TableFull) -> Self {
        let waiting = full.describe("pending client results");
        let text = format!("this node has {waiting}: invoke fewer clients at a time, or see --rest-requests-max");
        Self::temporary("Error.Node.Busy", text)
    }

    pub(super) fn too_many_lists(full: &TableFull) -> Self {
        let text = format!("this node has {}: list and count less at a time", full.describe("lists in progress"));
        Self::temporary("Error.Node.Busy", text)
    }

    /// Creates the error for a request displaced by another caller while its body was missing.
    pub(super) fn displaced() -> Self {
        let text = "the request was displaced: its body had not arrived, all permits were in use, and this caller had \
                    more than a quarter of them: send bodies immediately, or see --rest-requests-max";
        Self::temporary("Error.Node.Busy", text)
    }

    pub(super) fn stopping() -> Self {
        Self::temporary("Error.Node.Stopping", "this node is stopping")
    }

    pub(super) fn store_away(problem: &str) -> Self {
        Self::temporary("Error.Store.Unreachable", problem)
    }

    pub(super) fn no_record(problem: &str) -> Self {
        Self::temporary("Error.Record.Unreachable", problem)
    }

    pub(super) fn incomplete(missing: &[String]) -> Self {
        let text = format!("no reachable node has it, and these nodes did not answer: {}", missing.join(", "));
        Self::temporary("Error.Fleet.Incomplete", text)
    }

    pub(super) fn incomplete_list(missing: &[String]) -> Self {
        let text = format!(
            "these nodes did not answer: {}; retry, or accept the answer of the other nodes by partial=true",
            missing.join(", ")
        );
        Self::temporary("Error.Fleet.Incomplete", text).with_missing(missing)
    }

    /// Adds the nodes without an answer.
    #[must_use]
    pub(super) fn with_missing(self, missing: &[String]) -> Self {
        let names = Some(missing.join(",")).filter(|names| !names.is_empty());
        self.with_header(MISSING_NODES, names.and_then(|names| HeaderValue::from_str(&names).ok()))
    }

    fn with_header(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        value.into_iter().for_each(|value| drop(self.headers.insert(name.clone(), value)));
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

/// Adds the nodes without an answer, where the operation may or may not have been done.
pub(super) fn with_missing(mut answer: Response, missing: &[String]) -> Response {
    if let (false, Ok(names)) = (missing.is_empty(), HeaderValue::from_str(&missing.join(","))) {
        answer.headers_mut().insert(MISSING_NODES, names);
    }
    answer
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let Self { status, code, message, target, mut headers } = self;
        headers.insert(ERROR_CODE, HeaderValue::from_static(code));
        let body = json!({ "code": code, "message": message, "target": target, "details": [] });
        (status, headers, Json(body)).into_response()
    }
}
