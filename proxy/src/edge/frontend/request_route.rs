//! Routing of requests: the group of app servers for a client or request, or a refusal.
//!
//! A client is routed once it is identified, before its connection starts. Its shard may evaluate routes again later,
//! based on the same facts in the open frame.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use crate::edge::frontend::bearer::claims;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{HubClient, HubRequest};
use crate::edge::frontend::request::headers;
use crate::edge::frontend::request_context::RequestContext;
use crate::edge::frontend::upgrade_answer::is_upgrade;
use crate::edge::frontend::{Routed, refusal};
use crate::engine::upstream::{RouteChoice, ServerGroup, facts_of};
use crate::ground::auth::User;
use crate::ground::routing::RouteFacts;

/// Routes an identified request that may start a connection.
pub(crate) fn route(endpoint: &Endpoint, request: &HubRequest, client: &mut HubClient) -> Routed {
    if !endpoint.shared.hubs.has_routes() {
        return Routed::default();
    }
    match client {
        HubClient::Connecting(client) => {
            // Routes ignore messages of an existing HTTP transport connection.
            let outer = endpoint.shared.http_transports.find(&client.connection_id);
            if outer.is_some_and(|outer| outer.has_begun()) {
                return Routed::default();
            }
            choose(endpoint, request, &client.user, &client.connection_id)
        }
        HubClient::New(client) => {
            // A negotiating client gets its id when it connects; a WebSocket without negotiation gets it here, for
            // percentages.
            client.connection_id = is_upgrade(&request.parts.headers).then(random_id);
            choose(endpoint, request, &client.user, client.connection_id.as_deref().unwrap_or_default())
        }
    }
}

/// Chooses the group to query about a client before its user is known; `None` for the default group.
///
/// # Errors
/// The refusal, if a route rejects the client regardless of its user.
pub(crate) fn route_question(
    endpoint: &Endpoint,
    request: &HubRequest,
    user: Option<&User>,
) -> Result<Option<Arc<ServerGroup>>, Response> {
    if !endpoint.shared.hubs.has_routes() {
        return Ok(None);
    }
    let routed = choose(endpoint, request, user.unwrap_or(&User::default()), "");
    match &routed.choice {
        RouteChoice::Group(group) => Ok(group.clone()),
        RouteChoice::Rejected(_) if request.hub.is_served_by(RouteChoice::group_name(None)) => Ok(None),
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
    (parts, context): (&Parts, &RequestContext),
) -> Result<Option<Arc<ServerGroup>>, Response> {
    if !endpoint.shared.hubs.has_routes() {
        return Ok(None);
    }
    let seen = OpenConnection {
        headers: headers(&parts.headers, context.source.peer, Transport::WebSockets),
        query: context.query.for_hub(&parts.uri),
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

fn choose(endpoint: &Endpoint, request: &HubRequest, user: &User, connection_id: &str) -> Routed {
    let HubRequest { hub, parts, context, .. } = request;
    let path = hub.rule_path();
    let seen = OpenConnection {
        connection_id: connection_id.into(),
        claims: claims(user),
        headers: headers(&parts.headers, context.source.peer, Transport::WebSockets),
        query: context.query.for_hub(&parts.uri),
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
