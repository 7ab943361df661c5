//! External issuers of access tokens: their keys, `iss` values, audiences and hubs.

use std::fmt;

use super::app_key::{AppKeyError, HubScope};
use super::{JwksSource, VerifyingKey};

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
    pub(crate) fn set_hubs<'a>(&mut self, hubs: impl IntoIterator<Item = &'a str>) -> Result<(), AppKeyError> {
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
