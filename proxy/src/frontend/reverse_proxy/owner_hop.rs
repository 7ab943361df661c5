//! Owner hop: forwards a request to the node that owns its connection, once.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Body as _;
use trunkline_protocol::token::ConnectionToken;
use trunkline_protocol::wire::CONNECTION_TOKEN_PARAMETER;

use crate::frontend::connect::UNKNOWN_ID;
use crate::frontend::connect::http_transport_request::wants_event_stream;
use crate::frontend::connect::websocket_upgrade::is_upgrade;
use crate::frontend::endpoint::Endpoint;
use crate::frontend::in_flight::InFlight;
use crate::frontend::plain_response::plain;
use crate::frontend::request::query_value;
use crate::frontend::request_limit::refuse_slow_body;
use crate::frontend::reverse_proxy::relayed_body::{RelayedRequestBody, SilenceTimer};
use crate::frontend::reverse_proxy::{forward_mark, next_hop, silence_limit};
use crate::frontend::timed_body::TimedBody;
use crate::metrics::RelayFailure;
use crate::net::address::Address;
use crate::net::socket::WriteStallLimit;

/// Time after which a client that reads nothing of its answer loses the rest. Only the owner knows whether the connection
/// lives, and can't say so while nothing moves.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the address of the node that owns the connection of a request, if that is another node.
///
/// A connection that is here is ours, even with another node's token: WebSockets are served by the node they reach.
pub(crate) fn find_owner(endpoint: &Endpoint, request: &Request) -> Option<Address> {
    let shared = &endpoint.shared;
    let may_leave = shared.settings.relay.forward && !forward_mark::is_forwarded_by_node(request);
    if !may_leave || is_upgrade(request.headers()) {
        return None;
    }
    let sealed = query_value(request.uri(), CONNECTION_TOKEN_PARAMETER)?;
    let token = ConnectionToken::open(&sealed, &shared.settings.keys).ok()?;
    let is_ours = token.boot == shared.boot;
    let is_here = shared.routes.find(token.connection_id.as_deref().unwrap_or(&sealed)).is_some();
    if is_ours || is_here { None } else { token.address.parse().ok() }
}

/// Forwards a request to the node at `owner`.
///
/// After any failure the client learns that its connection is not there, and negotiates anew.
pub(crate) async fn forward(endpoint: &Endpoint, owner: &Address, request: Request) -> Response {
    let counters = &endpoint.counters.relay;
    counters.hops.increment();
    let begun = Instant::now();
    let settings = &endpoint.shared.settings;
    let limit = settings.relay.hop_timeout + wait_at_owner(settings.http_transports.poll_timeout, &request);
    let (mut parts, body) = request.into_parts();
    next_hop::prepare_request(&mut parts);
    forward_mark::set(settings, &mut parts);
    parts.extensions.clear();
    match exchange(endpoint, owner, parts, body, limit).await {
        Ok(answer) => {
            counters.hop_durations.observe_duration(begun.elapsed());
            if answer.status() == StatusCode::NOT_FOUND {
                counters.hop_misses.increment();
            }
            answer
        }
        Err(RelayFailure::ClientLate) => {
            counters.hop_failures.of(RelayFailure::ClientLate).increment();
            refuse_slow_body(endpoint)
        }
        Err(failure) => {
            tracing::debug!(%owner, %failure, "the node that owns a connection gave no answer");
            counters.hop_failures.of(failure).increment();
            plain(StatusCode::NOT_FOUND, UNKNOWN_ID)
        }
    }
}

/// Returns how long the owner may wait without being silent: a poll waits for messages, a send for a paused client.
fn wait_at_owner(poll_timeout: Duration, request: &Request) -> Duration {
    match *request.method() {
        Method::GET if !wants_event_stream(request) => poll_timeout,
        Method::POST => poll_timeout,
        _ => Duration::ZERO,
    }
}

async fn exchange(
    endpoint: &Endpoint,
    owner: &Address,
    parts: Parts,
    body: Body,
    limit: Duration,
) -> Result<Response, RelayFailure> {
    let in_flight = InFlight::new(endpoint.shared.clone());
    let silence = SilenceTimer::new();
    let body = if body.is_end_stream() {
        body
    } else {
        let body = TimedBody::for_hub(body, endpoint.shared.settings.limits.body_timeout);
        Body::new(RelayedRequestBody { body, silence: silence.clone(), meter: None, permit: None })
    };
    let request = next_hop::request(parts, body);
    let mut answer = silence_limit::send(&endpoint.proxy_client.nodes, owner, request, &silence, limit).await?;
    next_hop::prepare_answer(&mut answer);
    let mut answer = next_hop::answer(answer, None, in_flight, None);
    answer.extensions_mut().insert(WriteStallLimit::Idle(STALLED_TIMEOUT));
    Ok(answer)
}
