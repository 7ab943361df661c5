//! Reservation: the owner of a connection token releases the id to the node reached by a WebSocket, once.
//!
//! A connection token with a user named by the app is a credential, and a stateful reconnect token may belong to a lost
//! connection. Any node can decrypt both, so the issuing node decides: it releases the id once, as if the connection
//! had started there. If it can't confirm a user, the app is queried as for a client without negotiation, and must name
//! the same user.
//!
//! ```text
//!  upgrade at B ──► token of A, user named by the app ──► A: POST /.trunkline/reserve ─┬─ 204 ──► 101
//!                                                                 │                  └─ 404, 409 ──► likewise to the client
//!                                                                 └ no answer ──► on_negotiate: the same user? ──► 101
//! ```
//!
//! Stateful reconnect tokens are handled in `connect/stateful_connect`.

use std::rc::Rc;
use std::time::Duration;

use axum::response::Response;
use http::{Method, StatusCode};
use trunkline_protocol::token::{ConnectionToken, UserBinding};
use trunkline_protocol::wire::RESERVE_PATH;

use crate::edge::frontend::authorize::authorize;
use crate::edge::frontend::bearer::{find_user, token, verify_token};
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{ConnectingClient, HubRequest};
use crate::edge::frontend::identify::UNKNOWN_ID;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request_context::RequestContext;
use crate::edge::frontend::request_query::RequestQuery;
use crate::edge::frontend::request_route::route_question;
use crate::edge::frontend::reverse_proxy::{owner_head, reachable_owner, take_owner_permit};
use crate::engine::shard::ReserveError;
use crate::engine::upstream::RouteChoice;
use crate::ground::auth::User;
use crate::ground::clock::unix_seconds;
use crate::ground::metrics::ReservationOutcome;
use crate::ground::net::address::Address;

pub(crate) fn answer_reservation(endpoint: &Endpoint, method: &Method, query: &RequestQuery) -> Response {
    let shared = &endpoint.shared;
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    if method != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let Some((token, id)) = query.open_token(&shared.settings.keys) else { return unknown() };
    if token.boot != shared.boot || token.is_expired(unix_seconds()) {
        return unknown();
    }
    match shared.routes.reserve(&id) {
        Ok(()) => {
            // As if its connection had started and ended here.
            endpoint.shard.post(move |state| state.close_id(&Rc::from(id), true));
            plain(StatusCode::NO_CONTENT, "")
        }
        Err(ReserveError::Taken) => plain(StatusCode::CONFLICT, ""),
        Err(ReserveError::Unknown) => unknown(),
    }
}

/// Ensures that a connection token opens one connection in the fleet, and returns its user. `asked` is an earlier
/// answer of the owner, if any.
///
/// # Errors
/// The refusal, if the token was used or can't be checked.
pub(crate) async fn confirm(
    endpoint: &Endpoint,
    request: &HubRequest,
    (client, asked): (&ConnectingClient, Option<ReservationOutcome>),
) -> Result<User, Response> {
    let Some(opened) = &client.token else { return Ok(client.user.clone()) };
    // Without a user, the token is no credential; with an access token, the user was just authenticated.
    let names_user = opened.user.is_some() && opened.binding != UserBinding::AccessToken;
    let outcome = match asked {
        Some(outcome) => outcome,
        None if names_user && has_owner_elsewhere(endpoint, client) => {
            Box::pin(ask(endpoint, &request.context, client, endpoint.shared.settings.relay.hop_timeout)).await
        }
        None => return Ok(client.user.clone()),
    };
    match outcome {
        ReservationOutcome::Granted => Ok(client.user.clone()),
        ReservationOutcome::Taken => Err(plain(StatusCode::CONFLICT, "")),
        ReservationOutcome::Unknown => Err(plain(StatusCode::NOT_FOUND, UNKNOWN_ID)),
        ReservationOutcome::Unanswered if !names_user => Ok(client.user.clone()),
        ReservationOutcome::Unanswered => {
            let again = Box::pin(authorize_again(endpoint, request)).await.filter(|user| user.id == opened.user);
            again.ok_or_else(|| plain(StatusCode::NOT_FOUND, UNKNOWN_ID))
        }
    }
}

/// Whether another node can be queried for the id of a connection token. Nodes configured without access to each other
/// act alone.
pub(crate) fn has_owner_elsewhere(endpoint: &Endpoint, client: &ConnectingClient) -> bool {
    let can_be_asked = |token: &ConnectionToken| !token.address.is_empty() && endpoint.shared.settings.relay.forward;
    !client.is_ours && client.token.as_deref().is_some_and(can_be_asked)
}

/// Requests the id of a connection token from its owner, with this timeout. This uses up the token.
pub(crate) async fn ask(
    endpoint: &Endpoint,
    context: &RequestContext,
    client: &ConnectingClient,
    limit: Duration,
) -> ReservationOutcome {
    let owner = client.token.as_deref().and_then(|token| reachable_owner(endpoint, context, token));
    let outcome = match owner {
        Some(owner) => ask_owner(endpoint, (&owner, limit), client, &context.query).await,
        None => ReservationOutcome::Unanswered,
    };
    endpoint.counters.relay.reservations.of(outcome).increment();
    outcome
}

async fn ask_owner(
    endpoint: &Endpoint,
    (owner, limit): (&Address, Duration),
    client: &ConnectingClient,
    query: &RequestQuery,
) -> ReservationOutcome {
    let (Ok(_permit), Some(token)) = (take_owner_permit(endpoint, client), &client.token) else {
        return ReservationOutcome::Unanswered;
    };
    let (nodes, sealed) = (&endpoint.proxy_client.nodes, query.connection_token().unwrap_or_default());
    let settings = &endpoint.shared.settings;
    let answer = match owner_head::ask(settings, (nodes, owner), (RESERVE_PATH, sealed), limit).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%owner, %error, "cannot ask the owner of a connection token");
            return ReservationOutcome::Unanswered;
        }
    };
    match (owner_head::boot_of(answer.headers()), answer.status()) {
        (Some(boot), _) if boot != token.boot => {
            endpoint.shared.limits.hops.mark_gone(&token.boot);
            ReservationOutcome::Unanswered
        }
        (Some(_), StatusCode::NO_CONTENT) => ReservationOutcome::Granted,
        (Some(_), StatusCode::CONFLICT) => ReservationOutcome::Taken,
        (Some(_), StatusCode::NOT_FOUND) => ReservationOutcome::Unknown,
        // Another kind of server.
        _ => ReservationOutcome::Unanswered,
    }
}

/// Queries the app about the client again, if it decided at negotiation.
async fn authorize_again(endpoint: &Endpoint, request: &HubRequest) -> Option<User> {
    let hub = &request.hub;
    if !hub.settings().asks_app {
        return None;
    }
    let verified = verify_token(endpoint, hub, token(&request.parts.headers, &request.context.query)).await;
    let known = verified.as_ref().ok().and_then(Option::as_ref);
    let group = route_question(endpoint, request, known).ok()?;
    let group = RouteChoice::group_name(group.as_ref());
    let granted = authorize(endpoint, request, group, known).await.ok()?;
    if granted.decision.url.is_some() {
        return None;
    }
    find_user(endpoint, verified, &granted.decision).ok().map(|(user, _)| user)
}
