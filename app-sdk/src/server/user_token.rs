//! Access tokens that the app creates for its users.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use trunkline_protocol::access_token::{self, TokenTimes};
use trunkline_protocol::token::Claim;
use trunkline_protocol::unix_time::unix_seconds;

use super::server_core::ServerCore;
use super::user::TokenError;
use crate::brief_debug::brief_debug;

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
        let key = self.core.access.get().and_then(|access| access.keys().iter().next()).ok_or(TokenError::NoKeys)?;
        let times = TokenTimes::from_now(unix_seconds(SystemTime::now()), self.lifetime.as_secs());
        Ok(access_token::sign(&key, &self.user_id, &self.claims, times))
    }
}

brief_debug!(UserToken, |it| { user_id: it.user_id, claims: it.claims });
