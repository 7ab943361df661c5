//! Authentication: verifies the access token in a request's header or query, before anything else.
//!
//! Without a token there is no user. An invalid token is refused, because its bearer expects to be authenticated. This
//! covers requests that negotiate, or connect without negotiation; others are [identified](super::identify).

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Authentication;

use crate::auth::TokenError;
use crate::frontend::authorize::{Grant, authorize};
use crate::frontend::bearer::{find_user, mark_revocations, refuse_token, token, verify_token};
use crate::frontend::endpoint::Endpoint;
use crate::frontend::plain_response::plain;
use crate::frontend::request_route::route_question;
use crate::upstream::{Hub, RouteChoice};

/// Authenticates a request without a connection token. Stores its [`User`], the user's binding and the app's [`Grant`]
/// in the extensions.
pub(crate) async fn authenticate(
    endpoint: &Endpoint,
    hub: &Hub,
    request: &mut Request,
    is_negotiate: bool,
) -> Result<(), Response> {
    let settings = hub.settings();
    mark_revocations(endpoint, request);
    let verified = verify_token(endpoint, hub, token(request)).await;
    if let Err(revoked @ TokenError::Revoked) = &verified {
        // Even if the app decides: it may accept the token without knowing about the revocation.
        return Err(refuse_token(endpoint, revoked));
    }
    let granted = if settings.asks_app {
        let user = verified.as_ref().ok().and_then(Option::as_ref);
        let group = route_question(endpoint, hub, request, user)?;
        let group = RouteChoice::group_name(group.as_ref());
        endpoint.shared.wait_for_link(hub, group).await;
        Box::pin(authorize(endpoint, (hub, group), request, user)).await?
    } else {
        Grant::default()
    };
    if granted.decision.url.is_none() {
        let (user, binding) = find_user(endpoint, verified, &granted.decision)?;
        let is_needed =
            endpoint.shared.admission.verifier.is_required() || settings.authentication == Authentication::Required;
        if is_needed && !user.is_named() {
            // No body, like the official server: its clients show the reason phrase.
            return Err(plain(StatusCode::UNAUTHORIZED, ""));
        }
        request.extensions_mut().insert(user);
        request.extensions_mut().insert(binding);
    } else if !is_negotiate {
        return Err(plain(StatusCode::BAD_REQUEST, "this hub redirects its clients: negotiate first"));
    }
    request.extensions_mut().insert(granted);
    Ok(())
}
