//! Routes of requests: the group of app servers that takes a client or a request, or its refusal.
//!
//! A client is routed once it is identified, before its connection begins. Later its shard asks again, by the frame
//! that has opened the connection, and so by the same facts.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use crate::auth::User;
use crate::frontend::bearer::{claims, user_of};
use crate::frontend::endpoint::Endpoint;
use crate::frontend::identify::ConnectingClient;
use crate::frontend::request::headers;
use crate::frontend::request_extension::ChosenConnectionId;
use crate::frontend::request_query::RequestQuery;
use crate::frontend::routed::{Routed, refusal};
use crate::frontend::upgrade_answer::is_upgrade;
use crate::routing::RouteFacts;
use crate::upstream::{Hub, RouteChoice, ServerGroup, facts_of};

/// Routes an identified request that may begin a connection, and stores the outcome in its extensions.
pub(crate) fn route(endpoint: &Endpoint, hub: &Hub, request: Request) -> Request {
    if !endpoint.shared.hubs.has_routes() {
        return request;
    }
    // Messages of a connection over HTTP that has begun are of no concern to routes.
    let begun = |client: &ConnectingClient| endpoint.shared.admission.http_transports.find(&client.connection_id);
    let client = request.extensions().get::<ConnectingClient>();
    if client.and_then(begun).is_some_and(|outer| outer.has_begun()) {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    let client = parts.extensions.get::<ConnectingClient>().cloned();
    let routed = match &client {
        Some(client) => choose(endpoint, hub, &parts, &client.user, &client.connection_id),
        None => {
            let user = parts.extensions.get().cloned().unwrap_or_default();
            // One that negotiates now has its id once it connects; a WebSocket without negotiation gets it here, so
            // that a percentage can go by it.
            let id = is_upgrade(&parts.headers).then(random_id);
            let routed = choose(endpoint, hub, &parts, &user, id.as_deref().unwrap_or_default());
            if let Some(id) = id {
                parts.extensions.insert(ChosenConnectionId(id));
            }
            routed
        }
    };
    parts.extensions.insert(routed);
    Request::from_parts(parts, body)
}

/// Chooses the group whose app servers are asked about a client before it is known whom they name; `None` for the
/// default one.
///
/// # Errors
/// The refusal of a client that a route rejects, where nobody could name it.
pub(crate) fn route_question(
    endpoint: &Endpoint,
    hub: &Hub,
    request: &Request,
    user: Option<&User>,
) -> Result<Option<Arc<ServerGroup>>, Response> {
    if !endpoint.shared.hubs.has_routes() {
        return Ok(None);
    }
    let routed = choose(endpoint, hub, &parts_of(request), user.unwrap_or(&user_of(request)), "");
    match &routed.choice {
        RouteChoice::Group(group) => Ok(group.clone()),
        RouteChoice::Rejected(_) if hub.is_served_by(RouteChoice::group_name(None)) => Ok(None),
        RouteChoice::Rejected(rejection) => {
            routed.count();
            Err(refusal(rejection))
        }
    }
}

/// Routes a request that is no hub's.
///
/// # Errors
/// The refusal, if a route rejects it.
pub(crate) fn route_passed_through(
    endpoint: &Endpoint,
    request: &Request,
) -> Result<Option<Arc<ServerGroup>>, Response> {
    if !endpoint.shared.hubs.has_routes() {
        return Ok(None);
    }
    let parts = parts_of(request);
    let seen = OpenConnection {
        headers: headers(&parts, Transport::WebSockets),
        query: RequestQuery::of_parts(&parts.uri, &parts.extensions).for_hub(&parts.uri),
        ..OpenConnection::default()
    };
    let facts = RouteFacts { hub: None, ..facts_of(parts.uri.path(), &seen, None) };
    let routed = ask(endpoint, &facts);
    routed.count();
    match routed.choice {
        RouteChoice::Group(group) => Ok(group),
        RouteChoice::Rejected(rejection) => Err(refusal(&rejection)),
    }
}

fn choose(endpoint: &Endpoint, hub: &Hub, parts: &Parts, user: &User, connection_id: &str) -> Routed {
    let path = hub.rule_path();
    let seen = OpenConnection {
        connection_id: connection_id.into(),
        claims: claims(user),
        headers: headers(parts, Transport::WebSockets),
        query: RequestQuery::of_parts(&parts.uri, &parts.extensions).for_hub(&parts.uri),
        protocol: None,
    };
    let routed = ask(endpoint, &facts_of(&path, &seen, user.id.as_deref()));
    match routed.choice {
        // App servers that dial in are of no group.
        RouteChoice::Group(_) if !hub.capabilities().has_server_groups => {
            Routed { choice: RouteChoice::Group(None), ..routed }
        }
        _ => routed,
    }
}

fn ask(endpoint: &Endpoint, facts: &RouteFacts<'_>) -> Routed {
    let mut matched = Vec::new();
    let choice = endpoint.shared.hubs.choose_route(facts, |rule| matched.push(rule.matches.clone()));
    Routed { choice, matched }
}

/// Head of a request that goes on as it is.
fn parts_of(request: &Request) -> Parts {
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.headers, parts.uri) = (request.headers().clone(), request.uri().clone());
    parts.extensions = request.extensions().clone();
    parts
}
