//! Issuers of access tokens beside the fleet and its apps: their keys, the `iss`, audiences and hubs.

use std::fmt;

use super::app_key::{AppKeyError, HubScope};
use super::{JwksSource, VerifyingKey};

/// Maximum number of issuers with tables of their own.
pub(crate) const ISSUERS_MAX: usize = 250;

/// Issuer of access tokens, as a table `[issuers.NAME]` describes it. Its keys verify tokens with its `iss` only, and
/// only at its hubs; no other keys verify tokens with that `iss`.
#[derive(Debug, Clone, Default)]
pub struct Issuer {
    /// Name of the table.
    pub(crate) name: String,
    /// Accepted values of `iss`.
    pub(crate) issuers: Vec<String>,
    /// Accepted audiences; empty: any.
    pub(crate) audiences: Vec<String>,
    /// Hubs at which its tokens are accepted; `None` for all.
    pub(crate) hubs: Option<HubScope>,
    pub(crate) keys: Vec<VerifyingKey>,
    /// Sources of published keys.
    pub(crate) jwks: Vec<JwksSource>,
    /// First secret among the keys, for `trunkline token user --issuer`.
    pub(crate) secret: Option<String>,
}

impl Issuer {
    /// Restricts the issuer to hubs.
    ///
    /// # Errors
    /// When a name is invalid.
    pub(crate) fn set_hubs<'a>(&mut self, hubs: impl IntoIterator<Item = &'a str>) -> Result<(), AppKeyError> {
        self.hubs = Some(HubScope::new(&self.name, hubs)?);
        Ok(())
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Secret that signs tokens, the `iss` and the audiences that such a token needs; `None` without a secret.
    #[must_use]
    pub fn signing(&self) -> Option<(&str, &str, &[String])> {
        Some((self.secret.as_deref()?, self.issuers.first()?, &self.audiences))
    }

    /// Whether it issues tokens with this `iss`.
    pub(super) fn is_named(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|named| named == issuer)
    }

    /// Whether its tokens are accepted at a hub.
    pub(super) fn is_for(&self, hub: &str) -> bool {
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
        self.jwks.iter().try_for_each(|set| write!(f, ", jwks {set}"))
    }
}
