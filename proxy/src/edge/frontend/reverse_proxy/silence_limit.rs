//! Exchange with the next hop, with a limit on its silence.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tracing::debug;

use crate::edge::frontend::reverse_proxy::relayed_body::SilenceTimer;
use crate::ground::metrics::RelayFailure;
use crate::ground::net::address::Address;
use crate::ground::net::http_client::{HttpClient, HttpError, Patience};

/// Sends a request and waits for the response head. `limit` is the maximum silence of the other end, restarted whenever
/// the request body makes progress.
pub(crate) async fn send(
    client: &HttpClient,
    address: &Address,
    request: Request<Body>,
    silence: &Arc<SilenceTimer>,
    limit: Duration,
) -> Result<Response<Incoming>, RelayFailure> {
    send_patiently(client, address, request, silence, (limit, Patience::None)).await
}

/// Like [`send`], with the given patience for connecting.
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
    debug!(%error, "no response to a request");
    match error {
        _ if silence.is_client_late() => RelayFailure::ClientLate,
        _ if silence.is_client_broken() => RelayFailure::ClientBroken,
        _ if error.is_connect_timeout() => RelayFailure::Timeout,
        _ if error.is_unreachable() => RelayFailure::Unreachable,
        _ => RelayFailure::Broken,
    }
}
