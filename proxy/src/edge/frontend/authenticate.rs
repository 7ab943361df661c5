//! Authentication: verifies the access token in a request's header or query, before anything else.
//!
//! Without a token there is no user. An invalid token is refused, because its bearer expects to be authenticated. This
//! covers requests that negotiate, or connect without negotiation; others are [identified](super::identify).

use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Authentication;
use trunkline_protocol::token::UserBinding;

use crate::edge::frontend::authorize::authorize;
use crate::edge::frontend::bearer::{find_user, refuse_token, refuse_without_user, token, verify_token};
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{Grant, HubRequest, NewClient};
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request_route::route_question;
use crate::engine::upstream::RouteChoice;
use crate::features::admission::TokenError;

/// Authenticates a request without a connection token.
pub(crate) async fn authenticate(
    endpoint: &Endpoint,
    request: &HubRequest,
    is_negotiate: bool,
) -> Result<Box<NewClient>, Response> {
    let (hub, settings) = (&request.hub, request.hub.settings());
    let verified = verify_token(endpoint, hub, token(&request.parts.headers, &request.context.query)).await;
    // An app may know a token that the node rejects, but not about its revocation; a webhook receives no token.
    if let Err(error) = &verified
        && (error.error == TokenError::Revoked || hub.has_webhook())
    {
        return Err(refuse_token(endpoint, error));
    }
    let grant = if settings.asks_app {
        let user = verified.as_ref().ok().and_then(Option::as_ref);
        let group = route_question(endpoint, request, user)?;
        let group = RouteChoice::group_name(group.as_ref());
        endpoint.shared.wait_for_link(hub, group).await;
        Box::pin(authorize(endpoint, request, group, user)).await?
    } else {
        Grant::default()
    };
    if grant.decision.url.is_some() {
        return match is_negotiate {
            true => Ok(Box::new(NewClient { grant, ..NewClient::default() })),
            false => Err(plain(StatusCode::BAD_REQUEST, "this hub redirects its clients: negotiate first")),
        };
    }
    let (user, binding) = find_user(endpoint, verified, &grant.decision)?;
    let is_needed = endpoint.admission.verifier.is_required() || settings.authentication == Authentication::Required;
    if is_needed && !user.is_named() {
        return Err(refuse_without_user(endpoint, hub, binding == UserBinding::AccessToken));
    }
    Ok(Box::new(NewClient { user, binding, grant, connection_id: None }))
}

/// Authorizes a client of dial-in whose token was verified. The app may add claims, but only the token names the user,
/// because each later request presents it again.
pub(crate) async fn authorize_visitor(
    endpoint: &Endpoint,
    request: &HubRequest,
    mut client: NewClient,
) -> Result<Box<NewClient>, Response> {
    let group = RouteChoice::group_name(None);
    endpoint.shared.wait_for_link(&request.hub, group).await;
    let mut grant = authorize(endpoint, request, group, Some(&client.user)).await?;
    if grant.decision.user.as_ref().is_some_and(|id| client.user.id.as_ref() != Some(id)) {
        return Err(plain(StatusCode::FORBIDDEN, "the app names another user than the access token"));
    }
    grant.decision.url = None;
    client.user.claims.extend(grant.decision.claims.iter().cloned());
    Ok(Box::new(NewClient { grant, ..client }))
}
