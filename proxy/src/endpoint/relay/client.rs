//! The HTTP client: a pool of kept-alive connections, and one request with its time-outs.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tracing::debug;

use super::body::Progress;
use crate::counters::RelayFailure;

/// What makes connections. TLS to app servers would go in here.
type Connector = HttpConnector;

/// Connections without a request are closed after this: sooner than any server of ours closes them, so that no request
/// meets a connection that is just going away.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A host that went away without a word is noticed after some of these, also in the middle of a silent answer.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Bounds what one exchange keeps in memory of a body that is read slowly; also the largest head of an answer.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Sends requests over connections that it keeps.
#[derive(Debug)]
pub(super) struct HttpClient {
    client: Client<Connector, Body>,
}

impl HttpClient {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        let mut connector = Connector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_keepalive(Some(TCP_KEEP_ALIVE));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(BUFFER_MAX_BYTES)
            .build(connector);
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

fn failure(error: &Error) -> RelayFailure {
    debug!(%error, cause = error.source().map(tracing::field::display), "a request got no answer");
    if !error.is_connect() {
        return RelayFailure::Broken;
    }
    let mut cause = error.source();
    while let Some(one) = cause {
        if one.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            return RelayFailure::Timeout;
        }
        cause = one.source();
    }
    RelayFailure::Unreachable
}
