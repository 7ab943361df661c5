//! Users of access tokens, and verification of these tokens with the server's keys.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trunkline_protocol::access_token::{self, AccessTokenError};
use trunkline_protocol::unix_time::unix_seconds;

use super::server_core::ServerCore;
use crate::context::request::Claims;

/// User of an HTTP request: an axum extractor that verifies the access token in the request's `Authorization: Bearer`
/// header with the access keys of the server. Create such tokens with
/// [`ServerHandle::token`](crate::ServerHandle::token) or `trunkline token user`; a token is also valid for hubs.
///
/// The extractor needs the [`ServerHandle`](crate::ServerHandle) in the request's extensions.
/// [`trunkline::serve`](crate::serve()) adds it; with other servers, add `.layer(Extension(server.handle()))`.
///
/// ```
/// use axum::{Extension, Router, routing::post};
/// use trunkline::{Hub, Server, User};
///
/// async fn announce(user: User, text: String) -> String {
///     format!("{} says {text}", user.id())
/// }
///
/// async fn greet(user: Option<User>) -> String {
///     user.map_or("hello, stranger".into(), |user| format!("hello, {}", user.id()))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::new().hub(Hub::new("/board")).access_key("a secret of at least 16 bytes");
/// let handle = server.handle();
/// let app: Router = Router::new()
///     .route("/announce", post(announce))
///     .route("/greet", post(greet))
///     .layer(Extension(handle)) // `trunkline::serve` does this
///     .merge(server.into_router()?);
/// # Ok(()) }
/// ```
///
/// | request | `User` | `Option<User>` |
/// |---|---|---|
/// | with a good token | the user | `Some` |
/// | without a token | 401 | `None` |
/// | with an invalid token | 401 | 401: the client expects to be a user |
///
/// Only the header is read, not the query, because queries appear in logs. Tokens of other issuers, which proxies
/// verify with `--jwt-jwks` and similar flags, are not accepted here.
///
/// In [`Hub::on_negotiate`](crate::Hub::on_negotiate) this is the user verified by the **proxy**, with any of its keys,
/// from the header or the query; no setup is needed. A token rejected by the proxy yields no user there, because the
/// token may be one of the app's own: `Option<User>` is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    id: String,
    claims: Claims,
    expires_s: Option<u64>,
}

/// Error of creating or verifying an access token.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The server has no keys until [`Server::into_router`](crate::Server::into_router) is called.
    #[error("the server has no access keys before `Server::into_router` was called")]
    NoKeys,
    /// The token is not valid.
    #[error(transparent)]
    Refused(#[from] AccessTokenError),
    /// The token is valid, but has no user.
    #[error("the access token names no user")]
    NoUser,
}

/// Writes the text, as shown when `main` returns the error.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl User {
    /// Id of the user.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All claims of the token, including the id claim and `exp`.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Expiry of the token.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires_s.and_then(|expires_s| UNIX_EPOCH.checked_add(Duration::from_secs(expires_s)))
    }

    /// Converts a verified user; `None` for an anonymous one.
    pub(crate) fn of(user: access_token::User) -> Option<Self> {
        let access_token::User { id, claims, expires_s } = user;
        Some(Self { id: id?, claims: Claims::of_pairs(claims), expires_s })
    }
}

impl ServerCore {
    pub(crate) fn verify(&self, token: &str) -> Result<User, TokenError> {
        User::of(self.verify_token(token)?).ok_or(TokenError::NoUser)
    }

    /// Verifies an access token that may have no user.
    pub(super) fn verify_token(&self, token: &str) -> Result<access_token::User, TokenError> {
        let access = self.access.get().ok_or(TokenError::NoKeys)?;
        Ok(access_token::verify(token, access.keys(), unix_seconds(SystemTime::now()))?)
    }
}
