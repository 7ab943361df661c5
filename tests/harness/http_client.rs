//! HTTP requests: single ones, each on a connection of its own, or several on one.

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

/// Answer of a server.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Its body, as text.
    pub body: String,
}

impl Answer {
    /// A header's value, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// `GET` of a path at `host:port`.
///
/// # Errors
/// When no whole answer comes.
pub async fn get(address: &str, path: &str) -> Result<Answer> {
    ask(address, Method::GET, path, &[]).await
}

/// `POST` without a body.
///
/// # Errors
/// When no whole answer comes.
pub async fn post(address: &str, path: &str) -> Result<Answer> {
    ask(address, Method::POST, path, &[]).await
}

/// Any request without a body.
///
/// # Errors
/// When no whole answer comes.
pub async fn ask(address: &str, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    exchange(address, method, path, headers, Bytes::new()).await
}

/// Any request.
///
/// # Errors
/// When no whole answer comes.
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

/// Any request, whose answer's body is still to come.
///
/// # Errors
/// When no answer comes.
pub async fn request(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response<Incoming>> {
    HttpConnection::open(address).await?.send(method, path, headers, Body::from(body)).await
}

/// A connection for one request after the other, whose bodies may be streams.
#[derive(Debug)]
pub struct HttpConnection {
    address: String,
    sender: SendRequest<Body>,
}

impl HttpConnection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { address: address.into(), sender })
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// When none comes.
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
