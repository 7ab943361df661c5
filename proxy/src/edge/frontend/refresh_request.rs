//! Authentication refresh: a client presents a newer access token for its open connection, which continues with the new
//! claims and expiry.
//!
//! Source: the SignalR transport protocol for .NET 11, *POST endpoint-base/refresh*. Error names follow the official
//! server and Azure's service.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde_json::json;
use trunkline_protocol::service::{AckStatus, RefreshAuth, ServiceMessage};

use crate::edge::frontend::authenticate;
use crate::edge::frontend::bearer::claims;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{HubRequest, NewClient};
use crate::edge::frontend::negotiate::lifetime_s;

/// Header with the connection token of a client with a redirected negotiation.
const CONNECTION_TOKEN_HEADER: &str = "x-signalr-connection-token";

pub(crate) async fn answer_refresh(endpoint: &Endpoint, request: &HubRequest) -> Response {
    let HubRequest { hub, parts, context, .. } = request;
    let in_query = context.query.connection_token();
    let in_header = || parts.headers.get(CONNECTION_TOKEN_HEADER)?.to_str().ok();
    let Some(token) = in_query.or_else(in_header) else {
        let text = "name the connection: POST HUB/refresh?id=CONNECTION_TOKEN";
        return refusal(StatusCode::BAD_REQUEST, "missing_connection_token", text);
    };
    let NewClient { user, grant, .. } = match authenticate::authenticate(endpoint, request, false).await {
        Ok(client) => *client,
        Err(refused) => return refused,
    };
    if !user.is_named() {
        return refusal(StatusCode::UNAUTHORIZED, "invalid_token", "the access token names no user");
    }
    let (Some(fleet), Some(connection)) = (&endpoint.fleet, endpoint.shared.connection_of_token(hub, token)) else {
        return unknown();
    };
    let expires_s = user.expires_s.and_then(|end| end.try_into().ok()).unwrap_or(RefreshAuth::NO_END_S);
    let refresh = RefreshAuth { connection, claims: claims(&user), expires_s, ack_id: 0 };
    let asked = fleet.ask_fleet(&fleet.hub_named(hub.name()), ServiceMessage::RefreshAuth(refresh)).await;
    let problem = asked.ack.message.unwrap_or_default();
    match asked.ack.status {
        AckStatus::Ok => {
            let body = match user.expires_s {
                Some(end_s) => json!({ "tokenLifetimeSeconds": lifetime_s(end_s) }),
                None => json!({}),
            };
            // Includes the app's own headers and cookies.
            (grant.headers, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
        }
        AckStatus::NotFound => unknown(),
        AckStatus::Forbidden => refusal(StatusCode::FORBIDDEN, "permission_change_rejected", &problem),
        AckStatus::Timeout => refusal(StatusCode::SERVICE_UNAVAILABLE, "node_unreachable", &problem),
        _ => refusal(StatusCode::BAD_REQUEST, "refresh_failed", &problem),
    }
}

fn unknown() -> Response {
    let text = "no connection of this hub has that token: it has ended, or has negotiated without negotiateVersion=1";
    refusal(StatusCode::NOT_FOUND, "connection_not_found", text)
}

/// Refusal with an error code for client libraries and a text for people.
fn refusal(status: StatusCode, error: &str, message: &str) -> Response {
    (status, Json(json!({ "error": error, "message": message }))).into_response()
}
