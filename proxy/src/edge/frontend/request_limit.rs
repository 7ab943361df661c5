//! Limits on requests to hubs: number, rate and size. Each refusal names the option that changes it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body_util::Limited;
use hyper::body::Body as _;

use trunkline_protocol::limits::FIRST_GET_TIMEOUT_S;
use trunkline_protocol::service::{OpenConnection, ServiceMessage};

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::HubRequest;
use crate::edge::frontend::plain_response::{because, closing, plain};
use crate::edge::frontend::refusal::cause_of_limit;
use crate::edge::frontend::request_context::RequestSource;
use crate::edge::frontend::request_query::RequestQuery;
use crate::edge::frontend::timed_body::TimedBody;
use crate::engine::shard::close_with_heads;
use crate::ground::limits::{
    AddressPermit, ClientPermit, HeadAdmission, HeadBudget, HeadHolder, HeadWeight, RelayPermit, RelayRefusal, TooFast,
};
use crate::ground::metrics::Limit;

/// Retry-After at the connection limit; when others will close is unknown.
const ROOM_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Retry-After at the limit of pipes without a GET; they last at most this long.
const PIPE_RETRY_AFTER: Duration = Duration::from_secs(FIRST_GET_TIMEOUT_S as u64);

/// Retry-After at the limit of requests to the app; most are short.
const RELAY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Throttles a negotiate request: returns its delay in a burst, or the refusal.
pub(crate) fn throttle_negotiate(endpoint: &Endpoint, source: &RequestSource) -> Result<Duration, Response> {
    if let (Some(pending), Some(ip)) = (&endpoint.shared.limits.pending, source.counted_ip(&endpoint.shared.settings)) {
        pending.negotiated(ip, endpoint.shared.uptime()).map_err(|retry_after| {
            let text = "too many negotiations of this address without a connection: see --pending-per-address-max";
            refuse(endpoint, Limit::PendingPerAddress, retry_after, text)
        })?;
    }
    throttle(endpoint)
}

/// Throttles a connect request without a token; one with a token was throttled at negotiation.
pub(crate) fn throttle_connect(endpoint: &Endpoint, query: &RequestQuery) -> Result<Duration, Response> {
    if query.connection_token().is_none() { throttle(endpoint) } else { Ok(Duration::ZERO) }
}

fn throttle(endpoint: &Endpoint) -> Result<Duration, Response> {
    let Some(bucket) = &endpoint.shared.limits.connects else { return Ok(Duration::ZERO) };
    match bucket.take(endpoint.shared.uptime(), endpoint.shared.settings.limits.connect_wait) {
        Ok(wait) => {
            endpoint.counters.limit(Limit::Connects).add(u64::from(!wait.is_zero()));
            Ok(wait)
        }
        Err(TooFast { retry_after }) => {
            let text = "too many new connections within a second: see --connects-per-second";
            Err(refuse(endpoint, Limit::Connects, retry_after, text))
        }
    }
}

/// Takes a permit for a client connection, for its lifetime; `None` if neither addresses nor apps are counted.
/// `counted` is the number of its own connections that are already counted: 1 if it returns.
pub(crate) fn take_permit(
    endpoint: &Endpoint,
    request: &HubRequest,
    counted: u64,
) -> Result<Option<Box<ClientPermit>>, Response> {
    let shared = &endpoint.shared;
    let taken = shared.sockets() + shared.clients_away() + shared.limits.pipes.len() as u64;
    let taken = taken.saturating_sub(counted);
    let is_full = shared.settings.limits.connections.is_some_and(|most| taken >= u64::from(most.get()));
    if is_full {
        let text = "this node has reached its limit of connections: see --connections-max";
        return Err(refuse(endpoint, Limit::Connections, ROOM_RETRY_AFTER, text));
    }
    let share = shared.share_of_hub(request.hub.name());
    // Shares shrink as other apps connect, so a returning client needs only a place.
    let take = || match counted {
        0 => share.take(&shared.limits.connections),
        _ => shared.limits.connections.take(Some(share.signer.clone())),
    };
    let app = share.has_others.then(take).transpose().map_err(|full| {
        shared.limits.refusals.count("connections", full.label());
        let limit = full.limit;
        let text = format!(
            "the app of this hub has reached its share of connections, now {limit}: see --connections-max and the limit \
             of open files"
        );
        refuse(endpoint, Limit::Connections, ROOM_RETRY_AFTER, text)
    })?;
    let ip = request.context.source.counted_ip(&shared.settings);
    let address = shared.limits.clients.as_ref().zip(ip).map(|(clients, ip)| {
        clients.take(Some(ip.into())).map_err(|_full| {
            let text = "this address has reached its limit of connections: see --connections-per-address-max";
            refuse(endpoint, Limit::ConnectionsPerAddress, ROOM_RETRY_AFTER, text)
        })
    });
    let permit = ClientPermit { _address: address.transpose()?, _app: app };
    Ok((ip.is_some() || share.has_others).then(|| Box::new(permit)))
}

/// Reserves memory for the head of a new client, if it is large. Connections of the largest holder may be closed for
/// it.
pub(crate) fn take_head_room(
    endpoint: &Endpoint,
    HubRequest { hub, parts, context, .. }: &HubRequest,
    opening: impl FnOnce() -> OpenConnection,
) -> Result<Option<HeadWeight>, Response> {
    let of_headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if HeadBudget::is_free(of_headers + parts.uri.query().map_or(0, str::len)) {
        return Ok(None);
    }
    // Excludes the access token and node-only data.
    let (shared, opening) = (&endpoint.shared, opening());
    let (connection_id, app) = (opening.connection_id.clone(), shared.access.owner_of(hub.name()));
    let address = context.source.counted_ip(&shared.settings).map(Into::into);
    let bytes = ServiceMessage::OpenConnection(opening).to_body().len();
    let holder = HeadHolder { connection_id, app, address };
    let HeadAdmission { weight, evicted } = shared.limits.heads.take(bytes, holder);
    if !evicted.is_empty() {
        endpoint.counters.limit(Limit::HeadTotal).add(evicted.len() as u64);
        close_with_heads(shared, evicted);
    }
    weight.map_err(|_full| {
        endpoint.counters.limit(Limit::HeadTotal).increment();
        shared.limits.refusals.count("heads", shared.access.owner_of(hub.name()).label());
        let text = format!(
            "this request has {bytes} bytes of headers, claims and query, and the memory for heads over 4 KiB is used \
             up: see --heads-total-max-bytes"
        );
        let answer = plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text);
        because(cause_of_limit(Limit::HeadTotal), answer)
    })
}

pub(crate) fn count_connected(endpoint: &Endpoint, peer: Option<SocketAddr>) {
    let shared = &endpoint.shared;
    if let (Some(pending), Some(peer)) = (&shared.limits.pending, peer) {
        pending.connected(peer.ip(), shared.uptime());
    }
}

/// Takes a permit for a pipe opened by a POST before the first GET.
pub(crate) fn take_pipe_permit(endpoint: &Endpoint, source: &RequestSource) -> Result<AddressPermit, Response> {
    endpoint.shared.limits.pipes.take(source.counted_ip(&endpoint.shared.settings).map(Into::into)).map_err(|_full| {
        let text = "too many connections wait for their first GET: begin with the GET";
        refuse(endpoint, Limit::PendingPipes, PIPE_RETRY_AFTER, text)
    })
}

/// Takes a permit for a request to an app server, held while it is in flight.
pub(crate) fn take_relay_permit(endpoint: &Endpoint, source: &RequestSource) -> Result<RelayPermit, Response> {
    let address = source.counted_ip(&endpoint.shared.settings);
    let permit = endpoint.shared.limits.relays.take(address, source.relays.as_ref());
    permit.map_err(|refusal| match refusal {
        RelayRefusal::Node => {
            let text = "too many requests to the app are in flight: see --pass-through-max";
            refuse(endpoint, Limit::PassThrough, RELAY_RETRY_AFTER, text)
        }
        RelayRefusal::Address => {
            let text = "this address has too many requests to the app in flight: see --pass-through-per-address-max";
            refuse(endpoint, Limit::PassThroughPerAddress, RELAY_RETRY_AFTER, text)
        }
        RelayRefusal::Connection => {
            let text = "this connection has too many requests to the app in flight: the limit is a sixteenth of \
                        --pass-through-max and of --pass-through-per-upstream-max (more for load balancers of --trust)";
            refuse(endpoint, Limit::PassThroughPerConnection, RELAY_RETRY_AFTER, text)
        }
    })
}

/// Creates the refusal of a request displaced by a newer one while waiting for its client. The connection can't be
/// reused, because the rest of the body may still arrive.
pub(crate) fn refuse_displaced() -> Response {
    let text = "this request was displaced by a newer one, because its body did not arrive or its address had the most \
                requests in flight: see --pass-through-max and --pass-through-per-upstream-max";
    closing(because(cause_of_limit(Limit::PassThrough), plain(StatusCode::SERVICE_UNAVAILABLE, text)))
}

pub(crate) fn refuse_full_upstreams(endpoint: &Endpoint) -> Response {
    let text = "all app servers have reached their limit of requests in flight: see --pass-through-per-upstream-max";
    refuse(endpoint, Limit::PassThroughPerUpstream, RELAY_RETRY_AFTER, text)
}

/// Creates the refusal of a request with a stalled body. The connection can't be reused, because the rest may still
/// arrive.
pub(crate) fn refuse_slow_body(endpoint: &Endpoint) -> Response {
    endpoint.counters.limit(Limit::BodyTime).increment();
    let text = "the body of the request stalled or arrived too slowly: see --body-timeout";
    closing(because(cause_of_limit(Limit::BodyTime), plain(StatusCode::REQUEST_TIMEOUT, text)))
}

/// Creates the refusal of a request whose body is malformed or broke off.
pub(crate) fn refuse_broken_body() -> Response {
    closing(plain(StatusCode::BAD_REQUEST, "the body of the request is malformed or incomplete"))
}

/// Takes a permit to forward a request to another node, held while it is in flight; `None` if addresses are not
/// counted.
pub(crate) fn take_hop_permit(endpoint: &Endpoint, source: &RequestSource) -> Result<Option<AddressPermit>, Response> {
    let (Some(clients), Some(ip)) = (&endpoint.shared.limits.hop_clients, source.counted_ip(&endpoint.shared.settings))
    else {
        return Ok(None);
    };
    clients.take(Some(ip.into())).map(Some).map_err(|_full| {
        let text = "this address has too many requests relayed to other nodes: see --connections-per-address-max";
        refuse(endpoint, Limit::ConnectionsPerAddress, ROOM_RETRY_AFTER, text)
    })
}

/// Limits a request's body: it ends with an error if too large or too slow.
pub(crate) fn bound_body(endpoint: &Endpoint, headers: &HeaderMap, body: Body) -> Result<Body, Response> {
    let most = endpoint.shared.settings.limits.body_max_bytes;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most) {
        endpoint.counters.limit(Limit::BodySize).increment();
        let text = format!("the body is larger than {most} bytes: see --body-max-bytes");
        return Err(plain(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let limit = endpoint.shared.settings.limits.body_timeout;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let is_empty = body.is_end_stream();
    Ok(if is_empty { body } else { Body::new(Limited::new(TimedBody::for_hub(body, limit), most)) })
}

/// Counts a request over a limit and creates its refusal: 429 if the limit is the client's own, 503 if all clients
/// share it.
fn refuse(endpoint: &Endpoint, limit: Limit, retry_after: Duration, text: impl IntoResponse) -> Response {
    endpoint.counters.limit(limit).increment();
    let status = match limit {
        Limit::PendingPerAddress
        | Limit::ConnectionsPerAddress
        | Limit::PassThroughPerAddress
        | Limit::PassThroughPerConnection => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let seconds = retry_after.as_millis().div_ceil(1000).max(1).to_string();
    let headers = [(CONTENT_TYPE, "text/plain".to_owned()), (RETRY_AFTER, seconds)];
    because(cause_of_limit(limit), (status, headers, text).into_response())
}
