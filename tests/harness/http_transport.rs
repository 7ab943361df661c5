//! Client for Server-Sent Events or long polling without a library: sends each request explicitly.

use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::http_client::{Answer, exchange, post, request};
use crate::harness::scenario::until;

/// Negotiated connection of a client.
#[derive(Debug, Clone)]
pub struct CarriedClient {
    address: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl CarriedClient {
    /// Only negotiates at a hub's path.
    pub async fn negotiate(address: &str, hub: &str) -> Result<Self> {
        let answer = post(address, &format!("{hub}/negotiate?negotiateVersion=1")).await?.json()?;
        let token = answer.get("connectionToken").and_then(serde_json::Value::as_str).context("a token")?;
        Ok(Self::with_token(address, hub, token))
    }

    /// Creates a client for a connection with this token.
    #[must_use]
    pub fn with_token(address: &str, hub: &str, token: &str) -> Self {
        Self::with_headers(address, &format!("{hub}?id={token}"), Vec::new())
    }

    /// Creates a client for a negotiated connection, with its full path and the headers of each request.
    #[must_use]
    pub fn with_headers(address: &str, path: &str, headers: Vec<(String, String)>) -> Self {
        Self { address: address.into(), path: path.into(), headers }
    }

    /// Sends this access token with each request from now on.
    pub fn authorize(&mut self, token: &str) {
        self.headers.retain(|(name, _)| name != "authorization");
        self.headers.push(("authorization".into(), format!("Bearer {token}")));
    }

    /// Negotiates, makes the first poll, and sends the handshake.
    pub async fn join(address: &str, hub: &str, handshake: &str) -> Result<Self> {
        let client = Self::negotiate(address, hub).await?;
        for answer in [client.poll().await?, client.send(handshake).await?] {
            ensure!(answer.status == StatusCode::OK, "{answer:?}");
        }
        let welcome = client.poll().await?;
        ensure!(welcome.body.starts_with("{}\u{1e}"), "{welcome:?}");
        Ok(client)
    }

    /// Accesses the connection through another node.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.into(), ..self.clone() }
    }

    /// Path of all its requests, with its token.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Polls once and waits for the answer.
    pub async fn poll(&self) -> Result<Answer> {
        self.ask(Method::GET, &[], "").await
    }

    /// Posts once and waits for the answer.
    pub async fn send(&self, body: &str) -> Result<Answer> {
        self.ask(Method::POST, &[], body).await
    }

    /// Sends the DELETE request.
    pub async fn delete(&self) -> Result<Answer> {
        self.ask(Method::DELETE, &[], "").await
    }

    /// Requests an event stream that should be refused.
    pub async fn refused_events(&self) -> Result<Answer> {
        self.ask(Method::GET, &[("accept", "text/event-stream")], "").await
    }

    /// Opens the event stream.
    pub async fn events(&self) -> Result<EventStream> {
        let headers = self.all_headers(&[("accept", "text/event-stream")]);
        let answer = request(&self.address, Method::GET, &self.path, &headers, Bytes::new()).await?;
        ensure!(answer.status() == StatusCode::OK, "{answer:?}");
        let (parts, body) = answer.into_parts();
        Ok(EventStream { headers: parts.headers, body, text: String::new() })
    }

    /// Sends a GET without ever reading the answer. `accept` selects an event stream or a poll.
    pub async fn unread(&self, accept: &str) -> Result<Unread> {
        let mut socket = TcpStream::connect(&self.address).await?;
        let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", self.path, self.address);
        socket.write_all(head.as_bytes()).await?;
        // Peeks without consuming. Before the answer, another request of this client could overtake the GET.
        let mut status = [0; b"HTTP/1.1 200".len()];
        until(async || Ok((socket.peek(&mut status).await? == status.len()).then_some(()))).await?;
        ensure!(status == *b"HTTP/1.1 200", "the answer begins with {:?}", String::from_utf8_lossy(&status));
        Ok(Unread(socket))
    }

    async fn ask(&self, method: Method, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        let headers = self.all_headers(headers);
        exchange(&self.address, method, &self.path, &headers, Bytes::copy_from_slice(body.as_bytes())).await
    }

    /// The headers of each request, overridden by those for one request.
    fn all_headers<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        own.filter(|(name, _)| more.iter().all(|(other, _)| other != name)).chain(more.iter().copied()).collect()
    }
}

/// Socket of a client that never reads.
#[derive(Debug)]
pub struct Unread(TcpStream);

impl Unread {
    /// Waits until the server has reset the socket. A regular end would be hidden behind the unread data.
    pub async fn reset(&self) -> Result<()> {
        until(async || match self.0.take_error()? {
            Some(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(())),
            Some(error) => Err(error.into()),
            None => Ok(None),
        })
        .await
    }
}

/// Open event stream of a connection.
#[derive(Debug)]
pub struct EventStream {
    /// Headers of the response.
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
}

impl EventStream {
    /// Reads up to and including `end`.
    pub async fn until(&mut self, end: &str) -> Result<String> {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.text, rest));
            }
            ensure!(self.read().await?, "the stream has ended after {:?}", self.text);
        }
    }

    /// Reads until the stream ends.
    pub async fn rest(mut self) -> Result<String> {
        while self.read().await? {}
        Ok(self.text)
    }

    async fn read(&mut self) -> Result<bool> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        if let Ok(bytes) = frame?.into_data() {
            self.text.push_str(std::str::from_utf8(&bytes)?);
        }
        Ok(true)
    }
}
