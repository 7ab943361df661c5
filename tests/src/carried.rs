//! A client of Server-Sent Events or long polling without any library: each request is made by hand.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::http_client::{Answer, exchange, post, request};

/// A negotiated connection.
#[derive(Debug, Clone)]
pub struct CarriedClient {
    address: String,
    path: String,
}

impl CarriedClient {
    /// Negotiates at a hub's path, and sends nothing else.
    ///
    /// # Errors
    /// When the answer names no connection.
    pub async fn negotiate(address: &str, hub: &str) -> Result<Self> {
        let answer = post(address, &format!("{hub}/negotiate?negotiateVersion=1")).await?.json()?;
        let token = answer.get("connectionToken").and_then(serde_json::Value::as_str).context("a token")?;
        Ok(Self { address: address.into(), path: format!("{hub}?id={token}") })
    }

    /// Negotiates, makes the first poll, and shakes hands.
    ///
    /// # Errors
    /// When one of them is refused.
    pub async fn join(address: &str, hub: &str, handshake: &str) -> Result<Self> {
        let client = Self::negotiate(address, hub).await?;
        for answer in [client.poll().await?, client.send(handshake).await?] {
            ensure!(answer.status == StatusCode::OK, "{answer:?}");
        }
        let welcome = client.poll().await?;
        ensure!(welcome.body.starts_with("{}\u{1e}"), "{welcome:?}");
        Ok(client)
    }

    /// The same connection by way of another node.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.into(), path: self.path.clone() }
    }

    /// The path that all its requests go to, with its token.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One poll.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn poll(&self) -> Result<Answer> {
        self.ask(Method::GET, &[], "").await
    }

    /// One POST.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(&self, body: &str) -> Result<Answer> {
        self.ask(Method::POST, &[], body).await
    }

    /// The DELETE.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn delete(&self) -> Result<Answer> {
        self.ask(Method::DELETE, &[], "").await
    }

    /// A GET that asks for an event stream, and shall be refused.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn refused_events(&self) -> Result<Answer> {
        self.ask(Method::GET, &[("accept", "text/event-stream")], "").await
    }

    /// Opens the event stream.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn events(&self) -> Result<EventStream> {
        let headers = [("accept", "text/event-stream")];
        let answer = request(&self.address, Method::GET, &self.path, &headers, Bytes::new()).await?;
        ensure!(answer.status() == StatusCode::OK, "{answer:?}");
        let (parts, body) = answer.into_parts();
        Ok(EventStream { headers: parts.headers, body, text: String::new() })
    }

    async fn ask(&self, method: Method, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        exchange(&self.address, method, &self.path, headers, Bytes::copy_from_slice(body.as_bytes())).await
    }
}

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    /// Headers of its answer.
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
}

impl EventStream {
    /// What comes next, up to and with `end`.
    ///
    /// # Errors
    /// When the stream ends before.
    pub async fn until(&mut self, end: &str) -> Result<String> {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.text, rest));
            }
            ensure!(self.read().await?, "the stream has ended after {:?}", self.text);
        }
    }

    /// All that comes until the stream ends.
    ///
    /// # Errors
    /// When it breaks off.
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
