//! Who a request is from: an access token, by header or by query, verified before anything else is done for it.
//!
//! No token, no user; a token that is no good is refused, because its bearer believes to be somebody.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Authentication;

use super::request::{bearer, query_value};
use super::{Endpoint, plain};
use crate::identity::User;
use crate::link::Hub;

/// Finds out who a request is from, and leaves the [`User`] with it.
///
/// # Errors
/// What to answer to somebody who may not come in.
pub(super) async fn authenticate(endpoint: &Endpoint, hub: &Hub, request: &mut Request) -> Result<(), Response> {
    let verifier = &endpoint.shared.verifier;
    let user = match token(request) {
        None => User::default(),
        Some(token) => {
            verifier.verify(&token).await.map_err(|error| plain(StatusCode::UNAUTHORIZED, error.to_string()))?
        }
    };
    let is_needed = verifier.is_required() || hub.settings().authentication == Authentication::Required;
    if is_needed && user.id.is_none() {
        // Without a body, as the official server has it: its clients show the reason phrase.
        return Err(plain(StatusCode::UNAUTHORIZED, ""));
    }
    request.extensions_mut().insert(user);
    Ok(())
}

/// Who an authenticated request is from.
pub(super) fn user_of(request: &Request) -> User {
    request.extensions().get().cloned().unwrap_or_default()
}

fn token<B>(request: &http::Request<B>) -> Option<String> {
    let bearer = bearer(request.headers()).map(str::to_owned);
    bearer.or_else(|| query_value(request.uri(), "access_token")).filter(|token| !token.is_empty())
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
    fn the_header_counts_before_the_query_and_other_schemes_are_none_of_ours() {
        assert_eq!(of("/chat?access_token=q", Some("bearer h")).as_deref(), Some("h"));
        assert_eq!(of("/chat?access_token=q", Some("Basic eA==")).as_deref(), Some("q"));
        assert_eq!(of("/chat?access_token=", None), None);
    }
}
