//! The owner hop: a request whose connection another node owns goes there, once.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Body as _;
use trunkline_protocol::token::ConnectionToken;

use super::body::{Progress, RequestBody};
use super::{client, mark, onward};
use crate::config::Address;
use crate::frontend::answers::Counted;
use crate::frontend::carry::wants_events;
use crate::frontend::connect::UNKNOWN_ID;
use crate::frontend::request::query_value;
use crate::frontend::upgrade::is_upgrade;
use crate::frontend::{Endpoint, plain};
use crate::metrics::RelayFailure;
use crate::net::socket::Patience;

/// A client that takes nothing of what waits for it for this long does not get the rest. Only the owner knows whether the
/// connection lives, and nobody hears it while nothing moves.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the node is that owns the connection of a request, if that is another one than this.
///
/// A connection that is here is ours, whoever made its token: WebSockets are served where they land.
pub(in crate::frontend) fn owner(endpoint: &Endpoint, request: &Request) -> Option<Address> {
    let shared = &endpoint.shared;
    let may_leave = shared.settings.relay.forward && !mark::is_carried(request);
    if !may_leave || is_upgrade(request.headers()) {
        return None;
    }
    let sealed = query_value(request.uri(), "id")?;
    let token = ConnectionToken::open(&sealed, &shared.settings.keys).ok()?;
    let is_ours = token.boot == shared.boot;
    let is_here = shared.routes.find(token.connection_id.as_deref().unwrap_or(&sealed)).is_some();
    if is_ours || is_here { None } else { token.address.parse().ok() }
}

/// Carries a request to the node at `owner`.
///
/// Whatever goes wrong, the client learns that its connection is not there, and negotiates anew.
pub(in crate::frontend) async fn to_owner(endpoint: &Endpoint, owner: &Address, request: Request) -> Response {
    let counters = &endpoint.counters.relay;
    counters.hops.increment();
    let begun = Instant::now();
    let settings = &endpoint.shared.settings;
    let patience = settings.relay.hop_timeout + wait_at_owner(settings.carried.poll_timeout, &request);
    let (mut parts, body) = request.into_parts();
    onward::depart(&mut parts);
    mark::put(settings, &mut parts);
    parts.extensions.clear();
    match carry(endpoint, owner, parts, body, patience).await {
        Ok(answer) => {
            counters.hop_durations.lasted(begun.elapsed());
            if answer.status() == StatusCode::NOT_FOUND {
                counters.hop_misses.increment();
            }
            answer
        }
        Err(failure) => {
            tracing::debug!(%owner, %failure, "the node that owns a connection gave no answer");
            counters.hop_failures.of(failure).increment();
            plain(StatusCode::NOT_FOUND, UNKNOWN_ID)
        }
    }
}

/// What else than silence may keep the owner from answering at once: a poll waits for messages, a send for a client that
/// is paused.
fn wait_at_owner(poll_timeout: Duration, request: &Request) -> Duration {
    match *request.method() {
        Method::GET if !wants_events(request) => poll_timeout,
        Method::POST => poll_timeout,
        _ => Duration::ZERO,
    }
}

async fn carry(
    endpoint: &Endpoint,
    owner: &Address,
    parts: Parts,
    body: Body,
    patience: Duration,
) -> Result<Response, RelayFailure> {
    let under_way = Counted::new(endpoint.shared.clone());
    let progress = Progress::new();
    let body = if body.is_end_stream() {
        body
    } else {
        Body::new(RequestBody { body, progress: progress.clone(), meter: None })
    };
    let request = onward::request(parts, body);
    let mut answer = client::send(&endpoint.relay.nodes, owner, request, &progress, patience).await?;
    onward::arrive(&mut answer);
    let mut answer = onward::answer(answer, None, under_way);
    answer.extensions_mut().insert(Patience::Stalled(STALLED_TIMEOUT));
    Ok(answer)
}
