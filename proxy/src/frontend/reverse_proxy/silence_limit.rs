//! Exchange with the next hop, with a limit on its silence.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tracing::debug;

use crate::frontend::reverse_proxy::relayed_body::SilenceTimer;
use crate::metrics::RelayFailure;
use crate::net::address::Address;
use crate::net::http_client::{HttpClient, HttpError, Patience};

/// Sends a request, and waits for the head of its answer. The other end may be silent for `limit`, starting anew
/// whenever the request's body moves.
pub(crate) async fn send(
    client: &HttpClient,
    address: &Address,
    request: Request<Body>,
    silence: &Arc<SilenceTimer>,
    limit: Duration,
) -> Result<Response<Incoming>, RelayFailure> {
    send_patiently(client, address, request, silence, (limit, Patience::None)).await
}

/// Sends a request as [`send`] does, with this patience for a connection.
pub(crate) async fn send_patiently(
    client: &HttpClient,
    address: &Address,
    request: Request<Body>,
    silence: &Arc<SilenceTimer>,
    (limit, patience): (Duration, Patience),
) -> Result<Response<Incoming>, RelayFailure> {
    tokio::select! {
        answer = client.send_patiently(address, request, patience) => answer.map_err(|error| failure(&error, silence)),
        () = silence.expired(limit) => Err(RelayFailure::Timeout),
    }
}

fn failure(error: &HttpError, silence: &SilenceTimer) -> RelayFailure {
    debug!(%error, "a request got no answer");
    match error {
        _ if silence.is_client_late() => RelayFailure::ClientLate,
        _ if error.is_connect_timeout() => RelayFailure::Timeout,
        _ if error.is_unreachable() => RelayFailure::Unreachable,
        _ => RelayFailure::Broken,
    }
}
