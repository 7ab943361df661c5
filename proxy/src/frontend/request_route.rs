//! Routing of requests: the group of app servers for a client or request, or a refusal.
//!
//! A client is routed once it is identified, before its connection starts. Its shard may evaluate routes again later,
//! based on the same facts in the open frame.

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

/// Routes an identified request that may start a connection, and stores the result in its extensions.
pub(crate) fn route(endpoint: &Endpoint, hub: &Hub, request: Request) -> Request {
    if !endpoint.shared.hubs.has_routes() {
        return request;
    }
    // Routes ignore messages of an existing HTTP transport connection.
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
            // A negotiating client gets its id when it connects. A WebSocket without negotiation gets it here, so that
            // percentages can use it.
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

/// Chooses the group to query about a client before its user is known; `None` for the default group.
///
/// # Errors
/// The refusal, if a route rejects the client regardless of its user.
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

/// Routes a request that is not for a hub.
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
        // App servers that dial in have no groups.
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

fn parts_of(request: &Request) -> Parts {
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.headers, parts.uri) = (request.headers().clone(), request.uri().clone());
    parts.extensions = request.extensions().clone();
    parts
}
