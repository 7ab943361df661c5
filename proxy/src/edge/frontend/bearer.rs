//! Bearer of a request: its access token, the token's user, and the data sent to app servers.

use axum::response::Response;
use bytestring::ByteString;
use http::{HeaderMap, StatusCode};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::USER_ID_CLAIM;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::token::{Claim, UserBinding};
use trunkline_protocol::wire::{ACCESS_TOKEN_PARAMETER, PRIVATE_CLAIM_PREFIX};

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::plain_response::{ResponseNotes, because, plain};
use crate::edge::frontend::request::bearer;
use crate::edge::frontend::request_context::RequestContext;
use crate::edge::frontend::request_query::RequestQuery;
use crate::engine::shard::RevocationMark;
use crate::engine::upstream::Hub;
use crate::features::admission::TokenError;
use crate::ground::auth::User;
use crate::ground::clock::unix_seconds;

const USER_NEEDED: &str = "log in first: this hub requires an access token that names a user";

/// Refused access token of a client. The client gets the error; operators get it with the values of the token.
pub(crate) struct RefusedToken {
    pub error: TokenError,
    token: String,
    hub: String,
}

impl From<TokenError> for RefusedToken {
    fn from(error: TokenError) -> Self {
        Self { error, token: String::new(), hub: String::new() }
    }
}

pub(crate) async fn verify_token(
    endpoint: &Endpoint,
    hub: &Hub,
    token: Option<String>,
) -> Result<Option<User>, RefusedToken> {
    let Some(token) = token else { return Ok(None) };
    let verified = endpoint.admission.verifier.verify(&token, hub.name()).await;
    verified.map(Some).map_err(|error| RefusedToken { error, token, hub: hub.name().to_owned() })
}

/// Returns the user chosen by the app, or the access token's, and how the connection is bound to it.
pub(crate) fn find_user(
    endpoint: &Endpoint,
    verified: Result<Option<User>, RefusedToken>,
    decision: &Decision,
) -> Result<(User, UserBinding), Response> {
    let Decision { user, claims, expires_s, .. } = decision.clone();
    if user.as_ref().is_some_and(|id| !id.is_empty()) {
        // A token that only the app understands is acceptable.
        return Ok((User { id: user, claims, expires_s }, UserBinding::ConnectionToken));
    }
    let verified = verified.map_err(|error| refuse_token(endpoint, &error))?;
    let binding = if verified.is_some() { UserBinding::AccessToken } else { UserBinding::ConnectionToken };
    let mut user = verified.unwrap_or_default();
    user.claims.extend(claims);
    user.expires_s = expires_s.or(user.expires_s);
    Ok((user, binding))
}

pub(crate) fn refuse_token(endpoint: &Endpoint, RefusedToken { error, token, hub }: &RefusedToken) -> Response {
    let mut answer = refuse_token_because(endpoint, error, error.to_string());
    let detail = endpoint.admission.verifier.describe(error, token, hub);
    ResponseNotes::edit(&mut answer).text = Some(detail.into());
    answer
}

/// Creates the refusal of a client without a user. A hub of an app server has no text, like the official server: its
/// clients show the reason phrase.
pub(crate) fn refuse_without_user(endpoint: &Endpoint, hub: &Hub, has_token: bool) -> Response {
    let mut answer = plain(StatusCode::UNAUTHORIZED, if hub.has_webhook() { USER_NEEDED } else { "" });
    if has_token {
        let claims = endpoint.admission.verifier.policy.user_claims.join(", ");
        let detail = format!("the access token names no user: it has none of the claims {claims} (--user-claim)");
        ResponseNotes::edit(&mut answer).text = Some(detail.into());
    }
    answer
}

/// Creates and counts the refusal of an invalid access token, with a reason that describes the token.
pub(crate) fn refuse_token_because(endpoint: &Endpoint, error: &TokenError, reason: String) -> Response {
    endpoint.admission.verifier.count_refused(error);
    let answer = plain(StatusCode::UNAUTHORIZED, reason);
    if *error == TokenError::Revoked { because(Cause::TokenRevoked, answer) } else { answer }
}

/// Revocations known before a token is verified. The verification may miss later ones.
pub(crate) fn mark_revocations(endpoint: &Endpoint, context: &RequestContext) -> RevocationMark {
    let revocations = &endpoint.admission.revocations;
    if context.forwarded_user.is_none() {
        return revocations.mark();
    }
    // Another node verified it, and has since dialled and waits for the response.
    let in_flight_s = 2 * endpoint.shared.settings.relay.hop_timeout.as_secs().max(1);
    revocations.mark_of_carried(in_flight_s, unix_seconds())
}

pub(crate) fn token(headers: &HeaderMap, query: &RequestQuery) -> Option<String> {
    let shown = bearer(headers).or_else(|| query.value(ACCESS_TOKEN_PARAMETER)).map(str::to_owned);
    shown.filter(|token| !token.is_empty())
}

pub(crate) fn claims(user: &User) -> Vec<(ByteString, ByteString)> {
    let system = user.id.iter().map(|id| (USER_ID_CLAIM, id.as_str()));
    // Clients can't set claims reserved for proxies.
    let own = user.claims.iter().filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX));
    let own = own.map(|(name, value): &Claim| (name.as_str(), value.as_str()));
    system.chain(own).map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn of(uri: &str, authorization: Option<&str>) -> Option<String> {
        let headers = authorization.map(|value| (AUTHORIZATION, value.parse().unwrap()));
        token(&headers.into_iter().collect(), &RequestQuery::parse(&uri.parse().unwrap()))
    }

    #[test]
    fn the_header_counts_before_the_query_and_other_schemes_are_ignored() {
        assert_eq!(of("/chat?access_token=q", Some("bearer h")).as_deref(), Some("h"));
        assert_eq!(of("/chat?access_token=q", Some("Basic eA==")).as_deref(), Some("q"));
        assert_eq!(of("/chat?access_token=", None), None);
    }
}
