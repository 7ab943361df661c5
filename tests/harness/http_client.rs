//! HTTP requests, single or several per connection.

use anyhow::{Context, Result};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::scenario::named;

/// Response of a server.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status of the response.
    pub status: StatusCode,
    /// Headers of the response.
    pub headers: HeaderMap,
    /// Body decoded as text.
    pub body: String,
}

impl Answer {
    /// Value of a header, if present.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Parses the body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// Sends a `GET` for a path at `host:port`.
pub async fn get(address: &str, path: &str) -> Result<Answer> {
    ask(address, Method::GET, path, &[]).await
}

/// Sends a `POST` without a body.
pub async fn post(address: &str, path: &str) -> Result<Answer> {
    ask(address, Method::POST, path, &[]).await
}

/// Sends any request without a body.
pub async fn ask(address: &str, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    exchange(address, method, path, headers, Bytes::new()).await
}

/// Sends any request.
///
/// # Errors
/// If no complete response arrives.
pub async fn exchange(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer> {
    let (parts, body) = request(address, method, path, headers, body).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Sends any request and returns the response with an unread body.
pub async fn request(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response<Incoming>> {
    HttpConnection::open(address).await?.send(method, path, headers, Body::from(body)).await
}

/// Connection for sequential requests, with streaming bodies.
#[derive(Debug)]
pub struct HttpConnection {
    address: String,
    sender: SendRequest<Body>,
}

impl HttpConnection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If no server listens there.
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { address: address.into(), sender })
    }

    /// Sends a request and waits for the head of the response.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "host") {
            request = request.header(header::HOST, &self.address);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await?;
        let name = format!("the answer of {} to {path}", self.address);
        Ok(named(name, self.sender.send_request(request.body(body)?)).await?)
    }
}
