//! Policy for access tokens: keys, issuers, audiences and user claims.

use std::time::Duration;

use trunkline_protocol::access_token::USER_CLAIMS;
use trunkline_protocol::limits::{ACCESS_TOKEN_MAX_BYTES, CLOCK_SKEW_S};

use super::{JwksSource, VerifyingKey};

/// Policy for access tokens.
#[derive(Debug, Clone)]
pub struct TokenPolicy {
    /// Keys for all hubs, in addition to the fleet's keys: the short form of one issuer.
    pub keys: Vec<VerifyingKey>,
    /// Sources of published keys of that issuer.
    pub jwks: Vec<JwksSource>,
    /// Interval between refreshes of key sets.
    pub jwks_refresh: Duration,
    /// Minimum interval between refetches because of unknown keys.
    pub jwks_refetch: Duration,
    /// Accepted `iss` of that issuer and of the fleet's keys. `None` accepts any `iss` without an issuer table.
    pub issuer: Option<String>,
    /// Accepted audiences. Empty accepts any audience.
    pub audiences: Vec<String>,
    /// Tolerated clock skew in seconds.
    pub clock_skew_s: u64,
    /// Claims with the user id. The first claim present is used.
    pub user_claims: Vec<String>,
    /// Maximum size of a token.
    pub max_bytes: usize,
    /// Whether every client needs a token, even if its hub does not require one.
    pub is_required: bool,
}

impl TokenPolicy {
    /// Default maximum size of a token.
    pub const MAX_BYTES: usize = ACCESS_TOKEN_MAX_BYTES;

    /// Returns the default claims of the user id.
    #[must_use]
    pub fn default_user_claims() -> Vec<String> {
        USER_CLAIMS.map(str::to_owned).into()
    }
}

impl Default for TokenPolicy {
    /// Default policy: only the fleet's keys, with signature and times checked.
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            jwks: Vec::new(),
            jwks_refresh: Duration::from_secs(300),
            jwks_refetch: Duration::from_secs(10),
            issuer: None,
            audiences: Vec::new(),
            clock_skew_s: CLOCK_SKEW_S,
            user_claims: Self::default_user_claims(),
            max_bytes: Self::MAX_BYTES,
            is_required: false,
        }
    }
}
