//! HTTP requests of the checks: each over a new connection, with a deadline and a size limit.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE};
use http::request::Builder;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_tungstenite::tungstenite;
use trunkline_protocol::hub::{FramingError, HandshakeError, HubMessageError};
use trunkline_proxy::parts::{Connector, HttpClient, HttpError, read_whole, within};

use super::finding::excerpt;
use super::hub_url::HubUrl;
use crate::quantity::duration_text;

/// Maximum size of an answer and of a hub message.
pub(super) const ANSWER_MAX_BYTES: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("{0}")]
    Http(HttpError),
    #[error("the response is {status} with {excerpt}")]
    Status { status: StatusCode, excerpt: String },
    #[error("nothing received within {}", duration_text(*.0))]
    Late(Duration),
    #[error("the response is 101, but {0}")]
    Upgrade(&'static str),
    #[error("the response has the type {0:?}")]
    ContentType(String),
    #[error("the connection ended: {0}")]
    Closed(String),
    #[error("the WebSocket failed: {0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
    #[error("the hub handshake is refused: {0}")]
    Refused(String),
    #[error("invalid hub handshake received: {0}")]
    Handshake(#[from] HandshakeError),
    #[error("invalid hub message received: {0}")]
    Framing(#[from] FramingError),
    #[error("invalid hub message received: {0}")]
    Message(#[from] HubMessageError),
    #[error("more than 1MiB received without the end of a message")]
    Large,
}

impl From<HttpError> for ProbeError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Timeout(deadline) => Self::Late(deadline),
            other => Self::Http(other),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct AnswerSeen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) took: Duration,
}

impl AnswerSeen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn successful(self) -> Result<Self, ProbeError> {
        match self.status.is_success() {
            true => Ok(self),
            false => Err(ProbeError::Status { status: self.status, excerpt: excerpt(&self.body) }),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct ProbeClient {
    http: HttpClient,
    pub(super) url: HubUrl,
    pub(super) token: Option<String>,
    pub(super) origin: Option<HeaderValue>,
    /// Cookies set by a balancer, for subsequent requests.
    cookies: Option<HeaderValue>,
    pub(super) deadline: Duration,
}

impl ProbeClient {
    pub(super) fn new(
        connector: Connector,
        url: HubUrl,
        token: Option<String>,
        origin: Option<HeaderValue>,
        deadline: Duration,
    ) -> Self {
        Self { http: HttpClient::without_pool(connector), url, token, origin, cookies: None, deadline }
    }

    /// Client for another URL, as after a redirect.
    pub(super) fn at(&self, url: HubUrl, token: Option<String>) -> Self {
        Self { url, token: token.or_else(|| self.token.clone()), cookies: None, ..self.clone() }
    }

    /// Client acting for a page of this origin, or for no page.
    pub(super) fn of_page(&self, origin: Option<HeaderValue>) -> Self {
        Self { origin, ..self.clone() }
    }

    /// Client that sends the cookies of an answer, like a browser.
    pub(super) fn with_cookies_of(&self, answer: &AnswerSeen) -> Self {
        let pairs = answer.headers.get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let pairs: Vec<_> = pairs.filter_map(|cookie| cookie.split(';').next()).map(str::trim).collect();
        let cookies = HeaderValue::from_str(&pairs.join("; ")).ok().filter(|cookies| !cookies.is_empty());
        Self { cookies, ..self.clone() }
    }

    pub(super) async fn negotiate(&self) -> Result<AnswerSeen, ProbeError> {
        let request = self.with_token(self.request(Method::POST, &self.url.negotiate_target()));
        self.fetch(request.header(CONTENT_TYPE, "text/plain;charset=UTF-8"), Body::empty()).await
    }

    /// Sends a CORS preflight request for the negotiation, like a browser.
    pub(super) async fn preflight(&self) -> Result<AnswerSeen, ProbeError> {
        let request = self.request(Method::OPTIONS, &self.url.negotiate_target());
        let request = request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,x-requested-with,x-signalr-user-agent");
        self.fetch(request, Body::empty()).await
    }

    pub(super) async fn poll(&self, id: &str, deadline: Duration) -> Result<AnswerSeen, ProbeError> {
        let request = self.with_token(self.request(Method::GET, &self.url.connect_target(id, None)));
        self.fetch_within(request, Body::empty(), deadline).await
    }

    pub(super) async fn post(&self, id: &str, messages: Bytes) -> Result<AnswerSeen, ProbeError> {
        let request = self.with_token(self.request(Method::POST, &self.url.connect_target(id, None)));
        self.fetch(request.header(CONTENT_TYPE, "text/plain;charset=UTF-8"), Body::from(messages)).await
    }

    pub(super) async fn delete(&self, id: &str) -> Result<AnswerSeen, ProbeError> {
        let request = self.with_token(self.request(Method::DELETE, &self.url.connect_target(id, None)));
        self.fetch(request, Body::empty()).await
    }

    /// Opens an event stream or WebSocket. The token is in the query, because pages can't set headers here.
    pub(super) async fn open(
        &self,
        id: &str,
        headers: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Response<Incoming>, ProbeError> {
        let mut request = self.request(Method::GET, &self.url.connect_target(id, self.token.as_deref()));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::empty()).map_err(HttpError::from)?;
        Ok(within(self.deadline, self.http.send(&self.url.address, request)).await?)
    }

    pub(super) async fn refusal(&self, answer: Response<Incoming>) -> ProbeError {
        let status = answer.status();
        let read = within(self.deadline, read_whole(answer, ANSWER_MAX_BYTES)).await;
        let body = read.map(Response::into_body).unwrap_or_default();
        ProbeError::Status { status, excerpt: excerpt(&body) }
    }

    fn request(&self, method: Method, target: &str) -> Builder {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in [(ORIGIN, &self.origin), (COOKIE, &self.cookies)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request
    }

    fn with_token(&self, request: Builder) -> Builder {
        let request = request.header("x-requested-with", "XMLHttpRequest");
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn fetch(&self, request: Builder, body: Body) -> Result<AnswerSeen, ProbeError> {
        self.fetch_within(request, body, self.deadline).await
    }

    async fn fetch_within(&self, request: Builder, body: Body, deadline: Duration) -> Result<AnswerSeen, ProbeError> {
        let request = request.body(body).map_err(HttpError::from)?;
        let begun = Instant::now();
        let answer = self.http.fetch(&self.url.address, request, ANSWER_MAX_BYTES, deadline).await?;
        let (head, body) = answer.into_parts();
        Ok(AnswerSeen { status: head.status, headers: head.headers, body, took: begun.elapsed() })
    }
}
