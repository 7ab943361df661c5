//! Ask an app server something on behalf of a client, over connections that are kept.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::{Caller, Reach};
use crate::connector::Connector;

/// Largest answer: a decision is small, and a refusal is a page at most.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// A connection that nobody used for this long is closed; it has to be shorter than what the app server allows.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It took too long.
    #[error("no answer within {} s (--negotiate-timeout)", .0.as_secs())]
    Timeout(Duration),
    /// No connection, or it broke.
    #[error("no answer: {0}")]
    Http(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off, or is too large.
    #[error("the answer can't be read: {0}")]
    Body(String),
    /// The question can't be put.
    #[error("the question can't be written: {0}")]
    Request(#[from] http::Error),
}

/// Asks app servers; each shard has its own, so that its connections live on its thread.
#[derive(Debug, Clone)]
pub struct Questioner {
    client: Client<Connector, Body>,
    timeout: Duration,
}

impl Questioner {
    /// Asks over connections of this connector, and gives up after `timeout`.
    #[must_use]
    pub fn new(connector: Connector, timeout: Duration) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE_TIMEOUT).pool_timer(TokioTimer::new());
        Self { client: builder.build(connector), timeout }
    }

    /// Asks; `request` has a path alone. Over the network it shows that a node of the fleet asks.
    ///
    /// # Errors
    /// When no whole answer comes in time.
    pub async fn ask(
        &self,
        reach: &Reach,
        caller: Caller<'_>,
        request: Request<Body>,
    ) -> Result<Response<Bytes>, AskError> {
        timeout(self.timeout, self.exchange(reach, caller, request))
            .await
            .unwrap_or(Err(AskError::Timeout(self.timeout)))
    }

    async fn exchange(
        &self,
        reach: &Reach,
        caller: Caller<'_>,
        mut request: Request<Body>,
    ) -> Result<Response<Bytes>, AskError> {
        let answer = match reach {
            Reach::Memory(app) => app.ask(request).await,
            Reach::Network(address) => {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let scheme = if address.is_tls() { "https" } else { "http" };
                *request.uri_mut() =
                    Uri::builder().scheme(scheme).authority(address.authority()).path_and_query(path).build()?;
                caller.sign(request.headers_mut())?;
                self.client.request(request).await?.map(Body::new)
            }
        };
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| AskError::Body(error.to_string()))?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}
