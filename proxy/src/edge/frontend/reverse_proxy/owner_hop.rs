//! Owner hop: forwards a request to the node that owns its connection, once.
//!
//! The mark states that the forwarding node has checked method, origin and user. The owner gets no secrets of the
//! client; the client gets only headers of our transports.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;

use crate::edge::frontend::InFlight;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{ConnectingClient, HubRequest};
use crate::edge::frontend::identify::UNKNOWN_ID;
use crate::edge::frontend::plain_response::{RETRY_AFTER_SECONDS, because, plain, unavailable};
use crate::edge::frontend::request::wants_event_stream;
use crate::edge::frontend::request_context::RequestContext;
use crate::edge::frontend::request_limit::{refuse_broken_body, refuse_slow_body, take_hop_permit};
use crate::edge::frontend::reverse_proxy::relayed_body::{RelayedRequestBody, SilenceTimer};
use crate::edge::frontend::reverse_proxy::{next_hop, owner_head, reachable_owner, take_owner_permit};
use crate::edge::frontend::timed_body::TimedBody;
use crate::engine::shard::Reachability;
use crate::engine::transport::http_transport::{CarriedGet, GetKind};
use crate::ground::bounded::Lease;
use crate::ground::limits::{HOPS_PER_CONNECTION_MAX, HOPS_PER_OWNER_MAX};
use crate::ground::metrics::{HopRefusal, RelayFailure};
use crate::ground::net::address::Address;
use crate::ground::net::http_client::Patience;
use crate::ground::net::socket::WriteStallLimit;

/// Time after which a client that reads nothing loses the rest of its response. Only the owner knows whether the
/// connection is alive, and can't report it while the response is stalled.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);

/// Text for a client with a connection that may still exist.
const UNREACHED: &str = "the node that has this connection can't be reached at the moment: try again";

/// Returns the address of the node that owns the connection of a request, if it is another node.
///
/// A connection held here is ours, even with another node's token: WebSockets are served by the node they reach.
pub(crate) fn find_owner(endpoint: &Endpoint, request: &HubRequest, client: &ConnectingClient) -> Option<Address> {
    let is_here = request.is_upgrade || endpoint.shared.routes.find(&client.connection_id).is_some();
    if is_here { None } else { reachable_owner(endpoint, &request.context, client.token.as_ref()?) }
}

/// Forwards a request to the node at `owner`.
///
/// A live owner is dialled for as long as a hop may take; then the client may retry. After other failures it gets a 404
/// and negotiates again.
pub(crate) async fn forward(
    endpoint: &Endpoint,
    owner: &Address,
    (request, body): (Box<HubRequest>, Body),
    client: &ConnectingClient,
) -> Response {
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    let HubRequest { mut parts, context, dial_in, .. } = *request;
    if dial_in.is_none()
        && let Err(refusal) = owner_head::check_claims(&parts.method, client)
    {
        return refusal;
    }
    let permits = take_hop_permit(endpoint, &context.source)
        .and_then(|of_address| Ok((of_address, take_owner_permit(endpoint, client).map_err(refuse)?)));
    let permits = match permits {
        Ok(permits) => permits,
        Err(refusal) => return refusal,
    };
    let (counters, begun) = (&endpoint.counters.relay, Instant::now());
    counters.hops.increment();
    let settings = &endpoint.shared.settings;
    let limit = settings.relay.hop_timeout + wait_at_owner(settings.http_transports.poll_timeout, &parts);
    let reachability = client.token.as_ref().map(|token| endpoint.shared.other_nodes().reachability(&token.boot));
    let carried = begin_get(endpoint, (owner, client), (&parts, &context));
    let lost = carried.as_ref().map(|get| get.token().clone()).unwrap_or_default();
    let is_stream = wants_event_stream(&parts.headers);
    let user = owner_head::prepare_request(&mut parts, &context.query, client);
    owner_head::set_mark(settings, &mut parts, Some(&context), user);
    parts.extensions.clear();
    let terms = (limit, patience(reachability, settings.relay.hop_timeout));
    let exchanged = tokio::select! {
        exchanged = exchange(endpoint, owner, client, (parts, body), terms) => exchanged,
        () = lost.cancelled() => {
            counters.hop_failures.of(RelayFailure::Unreachable).increment();
            return unknown();
        }
    };
    match exchanged {
        Ok(answer) => {
            counters.hop_durations.observe_duration(begun.elapsed());
            if answer.status() == StatusCode::NOT_FOUND {
                counters.hop_misses.increment();
            }
            // Held while the response is being sent.
            let held = (permits, carried);
            answer.map(|body| {
                let body = Body::new(body.map_frame(move |frame| {
                    let _held = &held;
                    frame
                }));
                if is_stream { ended_by(body, lost) } else { body }
            })
        }
        Err(failure) => {
            counters.hop_failures.of(failure).increment();
            match failure {
                RelayFailure::ClientLate => refuse_slow_body(endpoint),
                RelayFailure::ClientBroken => refuse_broken_body(),
                _ => {
                    tracing::debug!(%owner, %failure, "no answer from the node that owns a connection");
                    match reachability {
                        Some(Reachability::Alive) => unavailable(Cause::NodeUnreachable, UNREACHED),
                        _ => unknown(),
                    }
                }
            }
        }
    }
}

/// Body of an event stream that ends when its owner is lost.
fn ended_by(body: Body, lost: CancellationToken) -> Body {
    Body::from_stream(body.into_data_stream().take_until(lost.cancelled_owned()))
}

fn patience(owner: Option<Reachability>, hop_timeout: Duration) -> Patience {
    match owner {
        Some(Reachability::Alive) => Patience::For(hop_timeout),
        Some(Reachability::Alone) => Patience::OneRest,
        _ => Patience::None,
    }
}

/// Registers a forwarded GET, so that it can be ended when this node stops.
fn begin_get(
    endpoint: &Endpoint,
    (owner, client): (&Address, &ConnectingClient),
    (parts, context): (&Parts, &RequestContext),
) -> Option<Lease<CarriedGet>> {
    let token = context.query.connection_token().filter(|_| parts.method == Method::GET)?;
    let kind = if wants_event_stream(&parts.headers) { GetKind::EventStream } else { GetKind::Poll };
    let boot = client.token.as_ref().map_or("", |token| token.boot.as_str());
    Some(endpoint.shared.carried_gets.begin_get((owner, boot), token, kind))
}

fn refuse(refusal: HopRefusal) -> Response {
    let (status, text) = match refusal {
        HopRefusal::OwnerGone | HopRefusal::TooOld => return plain(StatusCode::NOT_FOUND, UNKNOWN_ID),
        HopRefusal::OwnerFull => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("to its node ({HOPS_PER_OWNER_MAX} at a time)"))
        }
        HopRefusal::ConnectionFull => {
            (StatusCode::TOO_MANY_REQUESTS, format!("for its connection ({HOPS_PER_CONNECTION_MAX} at a time)"))
        }
    };
    let mut answer = plain(status, format!("too many requests are being relayed {text}"));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    because(Cause::LimitConnections, answer)
}

/// Returns how long the owner may legitimately wait: a poll waits for messages, a send for a paused client.
fn wait_at_owner(poll_timeout: Duration, parts: &Parts) -> Duration {
    match parts.method {
        Method::GET if !wants_event_stream(&parts.headers) => poll_timeout,
        Method::POST => poll_timeout,
        _ => Duration::ZERO,
    }
}

async fn exchange(
    endpoint: &Endpoint,
    owner: &Address,
    client: &ConnectingClient,
    (parts, body): (Parts, Body),
    terms: (Duration, Patience),
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
    let mut answer = next_hop::send_patiently(&endpoint.proxy_client.nodes, owner, request, &silence, terms).await?;
    if let (Some(boot), Some(token)) = (owner_head::boot_of(answer.headers()), &client.token)
        && boot != token.boot
    {
        endpoint.shared.limits.hops.mark_gone(&token.boot);
        return Err(RelayFailure::Unreachable);
    }
    owner_head::prepare_answer(&mut answer)?;
    let mut answer = next_hop::answer_forwarded(answer, None, in_flight, None);
    WriteStallLimit::Idle(STALLED_TIMEOUT).attach(&mut answer);
    Ok(answer)
}
