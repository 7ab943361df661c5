//! Authorize a client: call app servers on its behalf, one after the other until one can be reached.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tracing::debug;

use super::{AppServer, AppTarget, Caller};
use crate::net::http_client::{HttpClient, HttpError};

/// Maximum size of an answer: a decision is small, and a refusal is a page at most.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Why an app server's decision could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuthorizeError {
    #[error("no app server is linked")]
    Nobody,
    #[error("no answer within {} s (--negotiate-timeout)", .0.as_secs())]
    Timeout(Duration),
    #[error("no answer from {target}: {source}")]
    Exchange {
        /// The app server that was called last.
        target: AppTarget,
        source: HttpError,
    },
    /// The answer broke off, or is too large.
    #[error("the answer can't be read: {0}")]
    Body(String),
    #[error("the question can't be written: {0}")]
    Request(#[from] http::Error),
}

/// Client of the handlers by which apps authorize clients.
#[derive(Debug, Clone)]
pub(crate) struct Authorizer {
    client: HttpClient,
    timeout: Duration,
}

impl Authorizer {
    /// Calls by this HTTP client, and gives up after `timeout`.
    #[must_use]
    pub(crate) fn new(client: HttpClient, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Calls the first app server that can be reached. The request has a path and no body; over the network it is signed, so
    /// that the app knows a node of the fleet.
    ///
    /// # Errors
    /// When no whole answer comes in time.
    pub(crate) async fn authorize(
        &self,
        apps: &[Arc<AppServer>],
        caller: Caller<'_>,
        request: Parts,
    ) -> Result<Response<Bytes>, AuthorizeError> {
        timeout(self.timeout, self.authorize_in_turn(apps, caller, request))
            .await
            .unwrap_or(Err(AuthorizeError::Timeout(self.timeout)))
    }

    async fn authorize_in_turn(
        &self,
        apps: &[Arc<AppServer>],
        caller: Caller<'_>,
        request: Parts,
    ) -> Result<Response<Bytes>, AuthorizeError> {
        let mut outcome = Err(AuthorizeError::Nobody);
        for app in apps {
            outcome = self.exchange(&app.target, caller, request.clone()).await;
            match &outcome {
                Err(error @ AuthorizeError::Exchange { source, .. }) if source.is_unreachable() => {
                    debug!(%error, "another app server is asked, if there is one");
                }
                _ => break,
            }
        }
        outcome
    }

    async fn exchange(
        &self,
        target: &AppTarget,
        caller: Caller<'_>,
        mut request: Parts,
    ) -> Result<Response<Bytes>, AuthorizeError> {
        let answer = match target {
            AppTarget::Memory(app) => app.ask(Request::from_parts(request, Body::empty())).await,
            AppTarget::Network(address) => {
                caller.introduce(&mut request.headers)?;
                let answer = self.client.send(address, Request::from_parts(request, Body::empty())).await;
                answer.map_err(|source| AuthorizeError::Exchange { target: target.clone(), source })?.map(Body::new)
            }
        };
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| AuthorizeError::Body(error.to_string()))?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}
