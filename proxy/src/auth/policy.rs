//! Policy for access tokens: keys, issuers, audiences, claims of the user.

use std::time::Duration;

use trunkline_protocol::access_token::USER_CLAIMS;
use trunkline_protocol::limits::{ACCESS_TOKEN_MAX_BYTES, CLOCK_SKEW_S};

use super::{JwksSource, VerifyingKey};

/// Policy for access tokens.
#[derive(Debug, Clone)]
pub struct TokenPolicy {
    /// Keys in addition to the fleet's own, for all hubs: the short form of one issuer.
    pub keys: Vec<VerifyingKey>,
    /// Sources of published keys of that issuer.
    pub jwks: Vec<JwksSource>,
    /// Interval at which key sets are read again.
    pub jwks_refresh: Duration,
    /// Minimum interval at which unknown keys cause another read.
    pub jwks_refetch: Duration,
    /// Accepted `iss` of that issuer, and of the fleet's own keys; `None`: any that no table has.
    pub issuer: Option<String>,
    /// Accepted audiences; empty: any.
    pub audiences: Vec<String>,
    /// Tolerated difference of clocks.
    pub clock_skew_s: u64,
    /// Claims of the user id; the first one present counts.
    pub user_claims: Vec<String>,
    /// Size of the largest accepted token.
    pub max_bytes: usize,
    /// Whether every client needs a token, whatever its hub says.
    pub is_required: bool,
}

impl TokenPolicy {
    /// Default size of the largest accepted token.
    pub const MAX_BYTES: usize = ACCESS_TOKEN_MAX_BYTES;

    /// Returns the default claims of the user id.
    #[must_use]
    pub fn default_user_claims() -> Vec<String> {
        USER_CLAIMS.map(str::to_owned).into()
    }
}

impl Default for TokenPolicy {
    /// The fleet's keys alone; a token has to be signed and in time.
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
