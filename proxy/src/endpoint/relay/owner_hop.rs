//! The owner hop: a request whose connection another node owns goes there, once.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Body as _;
use trunkline_protocol::token::ConnectionToken;

use super::body::{Progress, RequestBody, UnderWay};
use super::mark::{self, Forwarded};
use super::{forwarded, onward};
use crate::counters::RelayFailure;
use crate::endpoint::connect::{UNKNOWN_ID, is_upgrade, wants_events};
use crate::endpoint::request::query_value;
use crate::endpoint::{Endpoint, plain};

/// How long a poll waits for messages at its owner, and a send for a client that is paused.
const WAIT_AT_OWNER: Duration = Duration::from_secs(90);

/// Where the node is that owns the connection of a request, if that is another one than this.
///
/// A connection that is here is ours, whoever made its token: WebSockets are served where they land.
pub(in crate::endpoint) fn owner(endpoint: &Endpoint, request: &Request) -> Option<String> {
    let settings = &endpoint.shared.settings;
    let may_leave = settings.relay.forward && request.extensions().get::<Forwarded>().is_none();
    if !may_leave || is_upgrade(request.headers()) {
        return None;
    }
    let sealed = query_value(request.uri(), "id")?;
    let token = ConnectionToken::open(&sealed, &settings.keys).ok()?;
    let is_ours = token.node == settings.node;
    let is_here = endpoint.shared.routes.find(token.connection_id.as_deref().unwrap_or(&sealed)).is_some();
    (!is_ours && !is_here && !token.address.is_empty()).then_some(token.address)
}

/// Carries a request to the node at `owner`.
///
/// Whatever goes wrong, the client learns that its connection is not there, and negotiates anew.
pub(in crate::endpoint) async fn to_owner(endpoint: &Endpoint, owner: &str, request: Request) -> Response {
    let counters = &endpoint.counters.relay;
    counters.hops.increment();
    let patience = endpoint.shared.settings.relay.hop_timeout + wait_at_owner(&request);
    let (mut parts, body) = request.into_parts();
    onward::depart(&mut parts);
    forwarded::forget(&mut parts);
    mark::put(&endpoint.shared.settings, &mut parts);
    parts.extensions.clear();
    match carry(endpoint, owner, parts, body, patience).await {
        Ok(answer) => {
            if answer.status() == StatusCode::NOT_FOUND {
                counters.hop_misses.increment();
            }
            answer
        }
        Err(failure) => {
            tracing::debug!(owner, %failure, "the node that owns a connection gave no answer");
            counters.hop_failures.of(failure).increment();
            plain(StatusCode::NOT_FOUND, UNKNOWN_ID)
        }
    }
}

/// What else than silence may keep the owner from answering at once.
fn wait_at_owner(request: &Request) -> Duration {
    match *request.method() {
        Method::GET if !wants_events(request.headers()) => WAIT_AT_OWNER,
        Method::POST => WAIT_AT_OWNER,
        _ => Duration::ZERO,
    }
}

async fn carry(
    endpoint: &Endpoint,
    owner: &str,
    parts: Parts,
    body: Body,
    patience: Duration,
) -> Result<Response, RelayFailure> {
    let under_way = UnderWay::begin(&endpoint.shared);
    let progress = Progress::new();
    let body = if body.is_end_stream() {
        body
    } else {
        Body::new(RequestBody { body, progress: progress.clone(), meter: None })
    };
    let request = onward::request(parts, owner, body)?;
    let mut answer = endpoint.relay.nodes.send(request, &progress, patience).await?;
    onward::arrive(&mut answer);
    Ok(onward::answer(answer, None, under_way))
}
