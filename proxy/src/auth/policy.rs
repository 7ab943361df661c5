//! What is asked of an access token.

use std::time::Duration;

use trunkline_protocol::limits::CLOCK_SKEW_S;

use super::{JwksSource, VerifyingKey};

/// Where the user id stands unless a flag says otherwise: short names first, then the one that .NET writes.
const USER_CLAIMS: [&str; 3] =
    ["nameid", "sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];

/// What is asked of an access token, whoever signed it.
#[derive(Debug, Clone)]
pub struct TokenPolicy {
    /// Keys beside the fleet's own.
    pub keys: Vec<VerifyingKey>,
    /// Where further keys are published.
    pub jwks: Vec<JwksSource>,
    /// How often these are read again.
    pub jwks_refresh: Duration,
    /// How soon after the last time a key that is not known makes them be read again.
    pub jwks_refetch: Duration,
    /// Who may have issued a token; anybody, if empty.
    pub issuers: Vec<String>,
    /// For whom a token may be; for anybody, if empty.
    pub audiences: Vec<String>,
    /// How far clocks may differ.
    pub clock_skew_s: u64,
    /// Claims that name the user: the first that is there.
    pub user_claims: Vec<String>,
    /// Largest token that is looked at.
    pub max_bytes: usize,
    /// Nobody comes in without a user, whatever a hub says.
    pub is_required: bool,
}

impl TokenPolicy {
    /// Largest token that is looked at: it has to fit into a head of 32 KiB beside all else.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// The claims that name the user, unless a flag says otherwise.
    #[must_use]
    pub fn default_user_claims() -> Vec<String> {
        USER_CLAIMS.map(str::to_owned).into()
    }
}

impl Default for TokenPolicy {
    /// The fleet's keys, and nothing asked but that a token is signed and in time.
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            jwks: Vec::new(),
            jwks_refresh: Duration::from_secs(300),
            jwks_refetch: Duration::from_secs(10),
            issuers: Vec::new(),
            audiences: Vec::new(),
            clock_skew_s: CLOCK_SKEW_S,
            user_claims: Self::default_user_claims(),
            max_bytes: Self::MAX_BYTES,
            is_required: false,
        }
    }
}
