//! Users of access tokens, and creation and verification of these tokens with the server's keys.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trunkline_protocol::access_token::{self, AccessTokenError, TokenTimes};
use trunkline_protocol::token::Claim;
use trunkline_protocol::unix_time::unix_seconds;

use super::server_core::ServerCore;
use crate::brief_debug::brief_debug;
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
    pub(crate) fn from_verified(user: access_token::User) -> Option<Self> {
        let access_token::User { id, claims, expires_s } = user;
        Some(Self { id: id?, claims: Claims::of_pairs(claims), expires_s })
    }
}

impl ServerCore {
    pub(crate) fn verify(&self, token: &str) -> Result<User, TokenError> {
        User::from_verified(self.verify_token(token)?).ok_or(TokenError::NoUser)
    }

    /// Verifies an access token that may have no user.
    pub(super) fn verify_token(&self, token: &str) -> Result<access_token::User, TokenError> {
        let access = self.access.get().ok_or(TokenError::NoKeys)?;
        Ok(access_token::verify(token, &access.keys, unix_seconds(SystemTime::now()))?)
    }
}

/// Default lifetime of a token, like that of `trunkline token user`.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Builder of an access token, created by [`ServerHandle::token`](crate::ServerHandle::token).
#[must_use = "there is no token before `sign`"]
pub struct UserToken {
    core: Arc<ServerCore>,
    user_id: String,
    claims: Vec<Claim>,
    lifetime: Duration,
}

impl UserToken {
    pub(super) fn new(core: Arc<ServerCore>, user_id: String) -> Self {
        Self { core, user_id, claims: Vec::new(), lifetime: LIFETIME }
    }

    /// Adds a claim of the user; names may repeat. For proxies that require an issuer or an audience (`--jwt-issuer`,
    /// `--jwt-audience`), set the claims `iss` and `aud`.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.claims.push((name.into(), value.into()));
        self
    }

    /// Sets the lifetime of the token; an hour by default.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Signs the token with the first access key of the server.
    ///
    /// # Errors
    /// Returns an error before [`Server::into_router`](crate::Server::into_router) was called.
    pub fn sign(self) -> Result<String, TokenError> {
        let key = self.core.access.get().and_then(|access| access.keys.iter().next()).ok_or(TokenError::NoKeys)?;
        let times = TokenTimes::from_now(unix_seconds(SystemTime::now()), self.lifetime.as_secs());
        Ok(access_token::sign(&key, &self.user_id, &self.claims, times))
    }
}

brief_debug!(UserToken, |it| { user_id: it.user_id, claims: it.claims });
