//! Plain HTTP/1.1 requests over a pipe.

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::task::spawn_local;

use super::fixture::Fixture;

/// Keep-alive connection to the node.
pub(super) struct HttpConnection(SendRequest<Full<Bytes>>);

impl HttpConnection {
    pub(super) async fn open(fixture: &Fixture) -> Self {
        Self::over(fixture.dial()).await
    }

    /// Starts HTTP on this pipe.
    pub(super) async fn over(pipe: DuplexStream) -> Self {
        let (sender, connection) = handshake(TokioIo::new(pipe)).await.unwrap();
        spawn_local(async move { drop(connection.with_upgrades().await) });
        Self(sender)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.0.is_ready()
    }

    /// Sends a request once and returns its status; an error if the connection ends instead.
    pub(super) async fn attempt(&mut self, request: Request<String>) -> hyper::Result<StatusCode> {
        let (head, body) = self.0.send_request(request.map(|body| Full::new(body.into()))).await?.into_parts();
        body.collect().await?;
        // Fails if this was the last response.
        drop(self.0.ready().await);
        Ok(head.status)
    }

    /// Sends a request and returns the response head; the caller reads the body.
    pub(super) async fn begin(&mut self, request: Request<String>) -> Response<Incoming> {
        self.0.ready().await.unwrap();
        self.0.send_request(request.map(|body| Full::new(body.into()))).await.unwrap()
    }

    pub(super) async fn exchange(&mut self, request: Request<String>) -> (StatusCode, String) {
        let (head, body) = self.begin(request).await.into_parts();
        (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap())
    }
}

pub(super) fn request(method: &str, target: &str, body: &str) -> Request<String> {
    Request::builder().method(method).uri(target).header("host", "node.example").body(body.to_owned()).unwrap()
}

/// Request without a body, with these headers.
pub(super) fn request_with(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Request<String> {
    let mut request = request(method, target, "");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// Sends one request over a new connection.
pub(super) async fn exchange(fixture: &Fixture, method: &str, target: &str, body: &str) -> (StatusCode, String) {
    HttpConnection::open(fixture).await.exchange(request(method, target, body)).await
}

/// Negotiates with version 1; returns the connection id and the connection token.
pub(super) async fn negotiate(fixture: &Fixture, hub: &str, query: &str) -> (String, String) {
    let (status, body) = exchange(fixture, "POST", &format!("{hub}/negotiate?negotiateVersion=1{query}"), "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    (text("connectionId"), text("connectionToken"))
}
