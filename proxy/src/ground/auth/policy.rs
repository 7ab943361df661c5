//! Policy for access tokens: keys, issuers, audiences and user claims. Issuers may be limited to hubs.

use std::fmt;
use std::time::Duration;

use trunkline_protocol::access_token::USER_CLAIMS;
use trunkline_protocol::limits::{ACCESS_TOKEN_MAX_BYTES, CLOCK_SKEW_S};

use super::app_key::HubScope;
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

/// Maximum number of `[issuers.NAME]` tables.
pub(crate) const ISSUERS_MAX: usize = 250;

/// Issuer of access tokens, configured by a table `[issuers.NAME]`. Its keys verify only tokens with its `iss`, at its
/// hubs only. Other keys never verify tokens with that `iss`.
#[derive(Debug, Clone, Default)]
pub struct Issuer {
    pub(crate) name: String,
    pub(crate) issuers: Vec<String>,
    /// Accepted audiences. Empty accepts any audience.
    pub(crate) audiences: Vec<String>,
    /// Hubs that accept tokens of the issuer; `None` for all hubs.
    pub(crate) hubs: Option<HubScope>,
    pub(crate) keys: Vec<VerifyingKey>,
    /// Files of the keys, in the same order.
    pub(crate) files: Vec<String>,
    pub(crate) jwks: Vec<JwksSource>,
    /// First shared secret, used by `trunkline token user --issuer`.
    pub(crate) secret: Option<String>,
}

impl Issuer {
    pub(crate) fn set_hubs<'a>(&mut self, hubs: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        self.hubs = Some(HubScope::new(&self.name, hubs)?);
        Ok(())
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Secret, `iss` and audiences for signing a token. `None` if the issuer has no secret.
    #[must_use]
    pub fn signing(&self) -> Option<(&str, &str, &[String])> {
        Some((self.secret.as_deref()?, self.issuers.first()?, &self.audiences))
    }

    pub(crate) fn is_named(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|named| named == issuer)
    }

    pub(crate) fn is_for(&self, hub: &str) -> bool {
        self.hubs.as_ref().is_none_or(|hubs| hubs.holds(hub))
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let audiences = if self.audiences.is_empty() { "any".to_owned() } else { self.audiences.join(", ") };
        write!(f, "issuer {}: iss {}, audiences {audiences}, ", self.name, self.issuers.join(", "))?;
        match &self.hubs {
            Some(hubs) => write!(f, "hubs {hubs}, ")?,
            None => f.write_str("all hubs, ")?,
        }
        write!(f, "keys in {} files", self.keys.len())?;
        self.files.iter().zip(&self.keys).try_for_each(|(file, key)| write!(f, ", {file}: {key}"))?;
        self.jwks.iter().try_for_each(|set| write!(f, ", jwks {set}"))
    }
}
