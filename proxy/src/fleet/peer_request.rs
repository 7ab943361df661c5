//! Requests to the admin API of other nodes, over node links.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use bytestring::ByteString;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use tower::ServiceExt;
use trunkline_protocol::fleet::RequestMethod;

/// Maximum response body. Lists are paged and stay far below it.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// Marks a request from an authenticated node of the fleet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromNode;

#[derive(Debug, Clone)]
pub(crate) struct PeerRequest {
    pub(super) method: RequestMethod,
    pub(super) target: ByteString,
    pub(super) body: Bytes,
}

/// Response of another node's admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerResponse {
    pub(crate) status: StatusCode,
    pub(super) body: Bytes,
}

impl PeerRequest {
    /// Creates a read request; `target` is a path with query.
    pub(crate) fn get(target: impl Into<ByteString>) -> Self {
        Self { method: RequestMethod::Get, target: target.into(), body: Bytes::new() }
    }

    /// Creates a write request; the body is JSON.
    #[must_use]
    pub(crate) fn post(target: impl Into<ByteString>, body: Bytes) -> Self {
        Self { method: RequestMethod::Post, target: target.into(), body }
    }

    pub(super) async fn answer_by(self, api: Router) -> PeerResponse {
        let method = match self.method {
            RequestMethod::Get => Method::GET,
            RequestMethod::Post => Method::POST,
        };
        let request = Request::builder()
            .method(method)
            .uri(&*self.target)
            .header(CONTENT_TYPE, "application/json")
            .extension(FromNode)
            .body(Body::from(self.body));
        let Ok(request) = request else { return PeerResponse::new(400, Bytes::new()) };
        let Ok(answer) = api.oneshot(request).await;
        let status = answer.status().as_u16();
        match Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await {
            Ok(body) => PeerResponse::new(status, body.to_bytes()),
            Err(_) => PeerResponse::new(507, Bytes::from_static(b"the answer is too large")),
        }
    }
}

impl PeerResponse {
    pub(crate) fn new(status: u16, body: Bytes) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), body }
    }

    /// Response while the API is not served yet.
    pub(super) fn starting() -> Self {
        Self::new(503, Bytes::from_static(b"the node is starting"))
    }

    pub(super) fn busy() -> Self {
        Self::new(503, Bytes::from_static(b"the node answers too many requests of other nodes"))
    }

    /// Parses the body of a successful response. Fails if the node refused or its JSON is invalid; text for people.
    pub(crate) fn read_body<T: DeserializeOwned>(&self) -> Result<T, String> {
        if !self.status.is_success() {
            return Err(format!("it answers {}", self.status));
        }
        serde_json::from_slice(&self.body).map_err(|error| format!("its answer can't be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::post;
    use serde_json::{Value, json};

    use super::*;

    fn api() -> Router {
        let echo = async |_: Extension<FromNode>, body: Bytes| body;
        Router::new().route("/echo", post(echo)).route("/large", post(async || vec![b' '; ANSWER_MAX_BYTES + 1]))
    }

    #[tokio::test]
    async fn a_request_is_answered_by_the_api_as_one_of_the_fleet() {
        let body = Bytes::from_static(b"[1]");
        let answer = PeerRequest::post("/echo?a=b", body).answer_by(api()).await;
        assert_eq!(answer.read_body::<Value>(), Ok(json!([1])));
        let missing = PeerRequest::get("/nothing").answer_by(api()).await;
        assert_eq!(missing.read_body::<Value>().unwrap_err(), "it answers 404 Not Found");
        assert_eq!(PeerRequest::get("no path").answer_by(api()).await.status, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn an_answer_is_bounded() {
        let answer = PeerRequest::post("/large", Bytes::new()).answer_by(api()).await;
        assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
    }
}
