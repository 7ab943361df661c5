//! One request that is carried on, with its time-outs.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tracing::debug;

use super::body::Progress;
use crate::config::Address;
use crate::metrics::RelayFailure;
use crate::net::connector::{ExchangeError, HttpClient};

/// Sends a request, and waits for the head of its answer. The other end may be silent for `patience`, beginning anew
/// whenever the request's body moves.
pub(super) async fn send(
    client: &HttpClient,
    address: &Address,
    request: Request<Body>,
    progress: &Arc<Progress>,
    patience: Duration,
) -> Result<Response<Incoming>, RelayFailure> {
    tokio::select! {
        answer = client.send(address, request) => answer.map_err(|error| failure(&error)),
        () = progress.overdue(patience) => Err(RelayFailure::Timeout),
    }
}

fn failure(error: &ExchangeError) -> RelayFailure {
    debug!(%error, "a request got no answer");
    match error {
        _ if error.is_connect_timeout() => RelayFailure::Timeout,
        _ if error.is_unreachable() => RelayFailure::Unreachable,
        _ => RelayFailure::Broken,
    }
}
