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

use super::stage::Stage;

/// A kept connection to the node.
pub(super) struct HttpConnection(SendRequest<Full<Bytes>>);

impl HttpConnection {
    pub(super) async fn open(stage: &Stage) -> Self {
        Self::over(stage.dial()).await
    }

    /// Speaks HTTP on this pipe.
    pub(super) async fn over(pipe: DuplexStream) -> Self {
        let (sender, connection) = handshake(TokioIo::new(pipe)).await.unwrap();
        spawn_local(async move { drop(connection.with_upgrades().await) });
        Self(sender)
    }

    /// Whether it is idle, and its end has not been seen.
    pub(super) fn is_usable(&self) -> bool {
        self.0.is_ready()
    }

    /// Sends a request once, and returns its status; an error if the connection ends instead.
    pub(super) async fn attempt(&mut self, request: Request<String>) -> hyper::Result<StatusCode> {
        let (head, body) = self.0.send_request(request.map(|body| Full::new(body.into()))).await?.into_parts();
        body.collect().await?;
        // It fails when the answer was the last one.
        drop(self.0.ready().await);
        Ok(head.status)
    }

    /// Sends a request and returns the answer's head; its body is read by the caller.
    pub(super) async fn begin(&mut self, request: Request<String>) -> Response<Incoming> {
        self.0.ready().await.unwrap();
        self.0.send_request(request.map(|body| Full::new(body.into()))).await.unwrap()
    }

    /// Sends a request and returns status and body.
    pub(super) async fn exchange(&mut self, request: Request<String>) -> (StatusCode, String) {
        let (head, body) = self.begin(request).await.into_parts();
        (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap())
    }
}

/// A request to the node, with a body or without.
pub(super) fn request(method: &str, target: &str, body: &str) -> Request<String> {
    Request::builder().method(method).uri(target).header("host", "node.example").body(body.to_owned()).unwrap()
}

/// Sends one request over a connection of its own.
pub(super) async fn exchange(stage: &Stage, method: &str, target: &str, body: &str) -> (StatusCode, String) {
    HttpConnection::open(stage).await.exchange(request(method, target, body)).await
}

/// Negotiates version 1: the connection id and the connection token.
pub(super) async fn negotiate(stage: &Stage, hub: &str, query: &str) -> (String, String) {
    let (status, body) = exchange(stage, "POST", &format!("{hub}/negotiate?negotiateVersion=1{query}"), "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    (text("connectionId"), text("connectionToken"))
}
