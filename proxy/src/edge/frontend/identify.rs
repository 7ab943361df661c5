//! Identification: the connection named by a request's token, and the user authenticated with it.
//!
//! Every request of a connection is identified first. If an access token named the user at negotiation, every request
//! must carry a valid token of the same user, because the connection token only names the connection. Credentials that
//! only the app can read (a cookie) were judged by the app at negotiation, and are bound by the connection token. A
//! request forwarded by another node was identified there.

use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Authentication;
use trunkline_protocol::token::{ConnectionToken, UserBinding};

use crate::edge::frontend::bearer::{refuse_token, refuse_without_user, token, verify_token};
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{ConnectingClient, HubRequest};
use crate::edge::frontend::plain_response::plain;
use crate::engine::upstream::Hub;
use crate::features::admission::TokenError;
use crate::ground::auth::User;
use crate::ground::clock::unix_seconds;

pub(crate) const UNKNOWN_ID: &str = "No Connection with that ID";

const OTHER_USER: &str = "the access token is not of the user that was negotiated with";

const TOKEN_NEEDED: &str = "this connection belongs to the user of an access token: send a valid one with each request, \
                            as 'Authorization: Bearer' or as access_token in the query";

/// Decrypts the connection token of a request, and checks the connection's user.
pub(crate) async fn identify(
    endpoint: &Endpoint,
    HubRequest { hub, parts, context, dial_in, .. }: &HubRequest,
) -> Result<Box<ConnectingClient>, Response> {
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    let (opened, connection_id) = context.query.open_token(&endpoint.shared.settings.keys).ok_or_else(unknown)?;
    if !opened.hub.eq_ignore_ascii_case(&hub.settings().path) {
        return Err(unknown());
    }
    let shown = match (context.forwarded_user.as_deref(), dial_in.as_ref().map(|client| &client.user)) {
        (Some(user), _) => Some(user.clone()),
        // Each dial-in request proves its user.
        (None, Some(user)) if user.id != opened.user => return Err(plain(StatusCode::UNAUTHORIZED, OTHER_USER)),
        (None, Some(user)) if hub.settings().asks_app => {
            Some(User { expires_s: user.expires_s, ..with_added(user.clone(), &opened) })
        }
        (None, Some(user)) => Some(user.clone()),
        (None, None) => shown_user(endpoint, hub, &opened, token(&parts.headers, &context.query)).await?,
    };
    if shown.is_none() && is_void(endpoint, &opened) {
        return Err(refuse_token(endpoint, &TokenError::Revoked.into()));
    }
    let negotiated = User { id: opened.user.clone(), claims: opened.user_claims(), expires_s: opened.expires_s };
    Ok(Box::new(ConnectingClient {
        connection_id,
        user: shown.unwrap_or(negotiated),
        is_fresh: !opened.is_expired(unix_seconds()),
        is_ours: opened.boot == endpoint.shared.boot,
        token: Some(Box::new(opened)),
    }))
}

/// Whether the token's user was named by the app and has been revoked since. Such a token acts like an access token,
/// because no other is presented.
fn is_void(endpoint: &Endpoint, opened: &ConnectionToken) -> bool {
    let named = opened.user.as_deref().filter(|_| opened.binding != UserBinding::AccessToken);
    endpoint.admission.revocations.void_log_in(named, opened.made_s(), unix_seconds())
}

/// Returns the user of the request's access token where it applies; its claims may be newer than at negotiation.
async fn shown_user(
    endpoint: &Endpoint,
    hub: &Hub,
    opened: &ConnectionToken,
    access_token: Option<String>,
) -> Result<Option<User>, Response> {
    let settings = hub.settings();
    let is_bound = opened.binding == UserBinding::AccessToken;
    if settings.asks_app && !is_bound {
        // The app decided at negotiation, and may accept tokens that this node can't verify.
        return Ok(None);
    }
    let shown = verify_token(endpoint, hub, access_token).await.map_err(|error| refuse_token(endpoint, &error))?;
    let id = shown.as_ref().and_then(|user| user.id.as_ref());
    if (id.is_some() || (is_bound && shown.is_some())) && id != opened.user.as_ref() {
        return Err(plain(StatusCode::UNAUTHORIZED, OTHER_USER));
    }
    if is_bound && shown.is_none() {
        return Err(plain(StatusCode::UNAUTHORIZED, TOKEN_NEEDED));
    }
    let is_required = endpoint.admission.verifier.is_required() || settings.authentication == Authentication::Required;
    if is_required && !settings.asks_app && id.is_none() {
        return Err(refuse_without_user(endpoint, hub, shown.is_some()));
    }
    let shown = shown.filter(|_| is_bound);
    Ok(if settings.asks_app { shown.map(|shown| with_added(shown, opened)) } else { shown })
}

/// User of an access token, with the claims and expiry added by the app at negotiation.
fn with_added(mut shown: User, opened: &ConnectionToken) -> User {
    let added = opened.user_claims();
    // At the end, because the last claim of a name counts.
    shown.claims.retain(|claim| !added.contains(claim));
    shown.claims.extend(added);
    User { expires_s: opened.expires_s, ..shown }
}
