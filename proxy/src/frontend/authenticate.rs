//! Authentication: the user of a request, by an access token in its header or query, verified before anything else.
//!
//! Without a token there is no user; a bad token is refused, because its bearer expects to be a user. This is for requests
//! that negotiate, or connect without negotiation; the others are [identified](super::identify).

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Authentication;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::token::UserBinding;
use trunkline_protocol::wire::ACCESS_TOKEN_PARAMETER;

use crate::auth::{TokenError, User};
use crate::frontend::authorize::{Grant, authorize};
use crate::frontend::endpoint::Endpoint;
use crate::frontend::plain_response::plain;
use crate::frontend::request::{bearer, query_value};
use crate::frontend::request_route::route_question;
use crate::upstream::{Hub, RouteChoice};

/// Authenticates a request without a connection token, and stores its [`User`], what binds it, and the app's [`Grant`] in
/// its extensions.
///
/// # Errors
/// The refusal of a client that may not connect.
pub(crate) async fn authenticate(
    endpoint: &Endpoint,
    hub: &Hub,
    request: &mut Request,
    is_negotiate: bool,
) -> Result<(), Response> {
    let settings = hub.settings();
    let verified = verify_token(endpoint, token(request)).await;
    let granted = if settings.asks_app {
        let user = verified.as_ref().ok().and_then(Option::as_ref);
        let group = route_question(endpoint, hub, request, user)?;
        let group = RouteChoice::group_name(group.as_ref());
        endpoint.shared.wait_for_link(hub, group).await;
        authorize(endpoint, (hub, group), request, user).await?
    } else {
        Grant::default()
    };
    if granted.decision.url.is_none() {
        let (user, binding) = find_user(endpoint, verified, &granted.decision)?;
        let is_needed = endpoint.shared.verifier.is_required() || settings.authentication == Authentication::Required;
        if is_needed && !user.is_named() {
            // Without a body, like the official server: its clients show the reason phrase.
            return Err(plain(StatusCode::UNAUTHORIZED, ""));
        }
        request.extensions_mut().insert(user);
        request.extensions_mut().insert(binding);
    } else if !is_negotiate {
        return Err(plain(StatusCode::BAD_REQUEST, "this hub sends its clients elsewhere: negotiate, to learn where"));
    }
    request.extensions_mut().insert(granted);
    Ok(())
}

/// Verifies the access token of a request, if it has one.
pub(crate) async fn verify_token(endpoint: &Endpoint, token: Option<String>) -> Result<Option<User>, TokenError> {
    match token {
        Some(token) => endpoint.shared.verifier.verify(&token).await.map(Some),
        None => Ok(None),
    }
}

/// Returns the user that the app has named, or the one of the access token; and what binds its connection to it.
pub(crate) fn find_user(
    endpoint: &Endpoint,
    verified: Result<Option<User>, TokenError>,
    decision: &Decision,
) -> Result<(User, UserBinding), Response> {
    let Decision { user, claims, expires_s, .. } = decision.clone();
    if user.as_ref().is_some_and(|id| !id.is_empty()) {
        // A token that only the app understands is no fault of its bearer.
        return Ok((User { id: user, claims, expires_s }, UserBinding::ConnectionToken));
    }
    let verified = verified.map_err(|error| refuse_token(endpoint, &error))?;
    let binding = if verified.is_some() { UserBinding::AccessToken } else { UserBinding::ConnectionToken };
    let mut user = verified.unwrap_or_default();
    user.claims.extend(claims);
    user.expires_s = expires_s.or(user.expires_s);
    Ok((user, binding))
}

/// Makes and counts the refusal of a bad access token.
pub(crate) fn refuse_token(endpoint: &Endpoint, error: &TokenError) -> Response {
    endpoint.shared.verifier.count_refused(error);
    plain(StatusCode::UNAUTHORIZED, error.to_string())
}

/// Returns the user of an authenticated request.
pub(crate) fn user_of(request: &Request) -> User {
    request.extensions().get().cloned().unwrap_or_default()
}

/// Returns the access token that a request shows.
pub(crate) fn token<B>(request: &http::Request<B>) -> Option<String> {
    let bearer = bearer(request.headers()).map(str::to_owned);
    bearer.or_else(|| query_value(request.uri(), ACCESS_TOKEN_PARAMETER)).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn of(uri: &str, authorization: Option<&str>) -> Option<String> {
        let mut request = http::Request::get(uri);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        token(&request.body(()).unwrap())
    }

    #[test]
    fn the_header_counts_before_the_query_and_other_schemes_are_ignored() {
        assert_eq!(of("/chat?access_token=q", Some("bearer h")).as_deref(), Some("h"));
        assert_eq!(of("/chat?access_token=q", Some("Basic eA==")).as_deref(), Some("q"));
        assert_eq!(of("/chat?access_token=", None), None);
    }
}
