//! Ask app servers something on behalf of a client, one after the other until one can be reached.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use tokio::time::timeout;
use tracing::debug;

use super::{AppServer, Caller, Reach};
use crate::net::http_client::{HttpClient, HttpError, read_whole};

/// Largest answer: a decision is small, and a refusal is a page at most.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AskError {
    /// There is nobody to ask.
    #[error("no app server is linked")]
    Nobody,
    /// It took too long.
    #[error("no answer within {} s (--negotiate-timeout)", .0.as_secs())]
    Timeout(Duration),
    /// No connection, or it broke.
    #[error("no answer from {reach}: {source}")]
    Exchange {
        /// Who was asked last.
        reach: Reach,
        source: HttpError,
    },
    /// The answer broke off, or is too large.
    #[error("the answer can't be read: {0}")]
    Body(String),
    /// The question can't be put.
    #[error("the question can't be written: {0}")]
    Request(#[from] http::Error),
}

#[derive(Debug, Clone)]
pub(crate) struct Questioner {
    client: HttpClient,
    timeout: Duration,
}

impl Questioner {
    /// Asks by this client, and gives up after `timeout`.
    #[must_use]
    pub(crate) fn new(client: HttpClient, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Asks the first of them that can be reached. The question has a path and no body; over the network it shows that a
    /// node of the fleet asks.
    ///
    /// # Errors
    /// When no whole answer comes in time.
    pub(crate) async fn ask(
        &self,
        apps: &[Arc<AppServer>],
        caller: Caller<'_>,
        question: Parts,
    ) -> Result<Response<Bytes>, AskError> {
        timeout(self.timeout, self.ask_in_turn(apps, caller, question))
            .await
            .unwrap_or(Err(AskError::Timeout(self.timeout)))
    }

    async fn ask_in_turn(
        &self,
        apps: &[Arc<AppServer>],
        caller: Caller<'_>,
        question: Parts,
    ) -> Result<Response<Bytes>, AskError> {
        let mut outcome = Err(AskError::Nobody);
        for app in apps {
            outcome = self.exchange(&app.reach, caller, question.clone()).await;
            match &outcome {
                Err(error @ AskError::Exchange { source, .. }) if source.is_unreachable() => {
                    debug!(%error, "another app server is asked, if there is one");
                }
                _ => break,
            }
        }
        outcome
    }

    async fn exchange(
        &self,
        reach: &Reach,
        caller: Caller<'_>,
        mut question: Parts,
    ) -> Result<Response<Bytes>, AskError> {
        let answer = match reach {
            Reach::Memory(app) => app.ask(Request::from_parts(question, Body::empty())).await,
            Reach::Network(address) => {
                caller.sign(&mut question.headers)?;
                let answer = self.client.send(address, Request::from_parts(question, Body::empty())).await;
                answer.map_err(|source| AskError::Exchange { reach: reach.clone(), source })?.map(Body::new)
            }
        };
        read_whole(answer, ANSWER_MAX_BYTES).await.map_err(|error| AskError::Body(error.to_string()))
    }
}
