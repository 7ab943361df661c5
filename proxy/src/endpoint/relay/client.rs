//! The HTTP client: a pool of kept-alive connections, and one request with its time-outs.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tracing::debug;

use super::body::Progress;
use crate::connector::{Connector, Wire};
use crate::counters::RelayFailure;

/// Connections without a request are closed after this: sooner than any server of ours closes them, so that no request
/// meets a connection that is just going away.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds what one exchange keeps in memory of a body that is read slowly; also the largest head of an answer.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Sends requests over connections that it keeps.
#[derive(Debug)]
pub(super) struct HttpClient {
    client: Client<Dialler, Body>,
}

impl HttpClient {
    pub(super) fn new(connector: Connector, connect_timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(BUFFER_MAX_BYTES)
            .build(Dialler { connector, timeout: connect_timeout });
        Self { client }
    }

    /// Sends a request, and waits for the head of its answer. The other end may be silent for `patience`, beginning
    /// anew whenever the request's body moves.
    ///
    /// A request that meets a kept connection which has just ended, before anything of it was sent, is sent again.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        progress: &Arc<Progress>,
        patience: Duration,
    ) -> Result<Response<Incoming>, RelayFailure> {
        tokio::select! {
            answer = self.client.request(request) => answer.map_err(|error| failure(&error)),
            () = progress.overdue(patience) => Err(RelayFailure::Timeout),
        }
    }
}

/// Makes connections, each within a time.
#[derive(Debug, Clone)]
struct Dialler {
    connector: Connector,
    timeout: Duration,
}

impl tower::Service<Uri> for Dialler {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Wire>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialled = timeout(self.timeout, self.connector.call(uri));
        Box::pin(async move { dialled.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) })
    }
}

fn failure(error: &Error) -> RelayFailure {
    debug!(%error, cause = error.source().map(tracing::field::display), "a request got no answer");
    if !error.is_connect() {
        return RelayFailure::Broken;
    }
    let mut cause = error.source();
    while let Some(one) = cause {
        if one.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return RelayFailure::Timeout;
        }
        cause = one.source();
    }
    RelayFailure::Unreachable
}
