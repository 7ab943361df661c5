//! Extraction of an HTTP request's user, from its access token or as verified by a proxy.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use trunkline_protocol::wire::bearer;

use super::handle::ServerHandle;
use super::user::{TokenError, User};

/// User verified by a proxy, in the extensions of a negotiate request; `None` without a user.
#[derive(Debug, Clone)]
pub(crate) struct ProxyVerified(pub(crate) Option<User>);

/// Rejection of a request that requires a user: 401 with `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserRejection {
    /// The request has no access token, or the proxy did not accept it.
    #[error("an access token is needed: `Authorization: Bearer`")]
    NoUser,
    /// The access token is not valid.
    #[error("{0}")]
    Token(TokenError),
    /// The extractor finds no keys: a configuration error of the app, with status 500.
    #[error(
        "the extractor `User` has no keys: serve by `trunkline::serve`, or add `.layer(Extension(server.handle()))`"
    )]
    NoHandle,
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = UserRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, UserRejection> {
        find(parts)?.ok_or(UserRejection::NoUser)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for User {
    type Rejection = UserRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, UserRejection> {
        find(parts)
    }
}

fn find(parts: &Parts) -> Result<Option<User>, UserRejection> {
    if let Some(ProxyVerified(user)) = parts.extensions.get() {
        return Ok(user.clone());
    }
    let handle = parts.extensions.get::<ServerHandle>().ok_or(UserRejection::NoHandle)?;
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    match token.map(|token| handle.verify(token)) {
        None => Ok(None),
        Some(Ok(user)) => Ok(Some(user)),
        Some(Err(TokenError::NoKeys)) => Err(UserRejection::NoHandle),
        Some(Err(error)) => Err(UserRejection::Token(error)),
    }
}

impl IntoResponse for UserRejection {
    fn into_response(self) -> Response {
        let challenge = match &self {
            Self::NoHandle => {
                tracing::error!("{self}");
                return (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response();
            }
            Self::NoUser => HeaderValue::from_static("Bearer"),
            Self::Token(_) => HeaderValue::from_static("Bearer error=\"invalid_token\""),
        };
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], self.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests;
