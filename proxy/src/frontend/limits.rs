//! Limits that requests to hubs are held to: how many, how fast, how large. Each answer names the option that changes it.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http_body_util::Limited;

use super::Endpoint;
use super::refusal::{because, of_limit};
use super::request::{peer_of, query_value};
use crate::limits::{AddressPermit, TooFast};
use crate::metrics::Limit;

/// When somebody may come again for whom there is no room; nobody knows when others leave.
const ROOM_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Whose limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The node's: somebody else has taken it all.
    Nodes,
    Own,
}

/// Lets a negotiate pass, or sends it away: in a burst it is to wait for so long.
pub(super) fn hold_negotiate(endpoint: &Endpoint, request: &Request) -> Result<Duration, Response> {
    if let (Some(pending), Some(ip)) = (&endpoint.shared.limits.pending, ip(request)) {
        pending.negotiated(ip, endpoint.shared.uptime()).map_err(|retry_after| {
            let text = "too many negotiates of this address led to no connection: see --pending-per-address-max";
            refuse(endpoint, Limit::PendingPerAddress, Whose::Own, retry_after, text)
        })?;
    }
    pace(endpoint)
}

/// Lets a connect request pass, or sends it away. One without a token was not held at negotiate.
pub(super) fn hold_connect(endpoint: &Endpoint, request: &Request) -> Result<Duration, Response> {
    if query_value(request.uri(), "id").is_none() { pace(endpoint) } else { Ok(Duration::ZERO) }
}

fn pace(endpoint: &Endpoint) -> Result<Duration, Response> {
    let Some(bucket) = &endpoint.shared.limits.connects else { return Ok(Duration::ZERO) };
    match bucket.take(endpoint.shared.uptime(), endpoint.shared.settings.limits.connect_wait) {
        Ok(wait) => {
            endpoint.counters.limit(Limit::Connects).add(u64::from(!wait.is_zero()));
            Ok(wait)
        }
        Err(TooFast { retry_after }) => {
            let text = "too many new connections at once: see --connects-per-second";
            Err(refuse(endpoint, Limit::Connects, Whose::Nodes, retry_after, text))
        }
    }
}

/// A place for a new client connection, to be kept for as long as it lives; `None` where addresses are not counted.
pub(super) fn seat(endpoint: &Endpoint, request: &Request) -> Result<Option<Box<AddressPermit>>, Response> {
    let shared = &endpoint.shared;
    let is_full = shared.settings.limits.connections.is_some_and(|most| shared.sockets() >= u64::from(most.get()));
    if is_full {
        let text = "this node has as many connections as it may have: see --connections-max";
        return Err(refuse(endpoint, Limit::Connections, Whose::Nodes, ROOM_RETRY_AFTER, text));
    }
    let Some(ip) = ip(request) else { return Ok(None) };
    let seat = shared.limits.clients.as_ref().map(|clients| {
        clients.take(ip).map(Box::new).ok_or_else(|| {
            let text = "this address has as many connections as it may have: see --connections-per-address-max";
            refuse(endpoint, Limit::ConnectionsPerAddress, Whose::Own, ROOM_RETRY_AFTER, text)
        })
    });
    let seat = seat.transpose()?;
    if let (Some(pending), true) = (&shared.limits.pending, query_value(request.uri(), "id").is_some()) {
        pending.connected(ip, shared.uptime());
    }
    Ok(seat)
}

/// The request with a body that ends with an error where it is too large.
pub(super) fn bound_body(endpoint: &Endpoint, request: Request) -> Result<Request, Response> {
    let most = endpoint.shared.settings.limits.body_max_bytes;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most) {
        endpoint.counters.limit(Limit::BodySize).increment();
        let text = format!("the body is larger than {most} bytes: see --body-max-bytes");
        return Err(super::plain(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(request.map(|body| Body::new(Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX)))))
}

fn ip(request: &Request) -> Option<IpAddr> {
    peer_of(request.extensions()).map(|peer| peer.ip())
}

fn refuse(endpoint: &Endpoint, limit: Limit, whose: Whose, retry_after: Duration, text: &'static str) -> Response {
    endpoint.counters.limit(limit).increment();
    let status = match whose {
        Whose::Nodes => StatusCode::SERVICE_UNAVAILABLE,
        Whose::Own => StatusCode::TOO_MANY_REQUESTS,
    };
    let seconds = retry_after.as_millis().div_ceil(1000).max(1).to_string();
    let headers = [(CONTENT_TYPE, "text/plain".to_owned()), (RETRY_AFTER, seconds)];
    because(of_limit(limit), (status, headers, text).into_response())
}
