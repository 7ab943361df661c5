//! Secrets that sign webhook requests instead of the access key.

use std::str::FromStr;

use trunkline_protocol::key::{AccessKey, AccessKeyError};

use crate::ground::routing::Pattern;

/// Webhook secret of some hubs. All secrets of a hub sign each request, so secrets can be rotated without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    hubs: Pattern,
    secret: AccessKey,
}

/// Error of parsing a webhook secret. No error text contains the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookSecretError {
    /// The hub or the secret is missing.
    #[error("is not `HUB=SECRET`, such as `chat=…`, or `*=…` for all hubs with webhooks")]
    NoPair,
    /// The secret is invalid for signing.
    #[error("its secret can't be used: {0}")]
    Secret(AccessKeyError),
}

impl WebhookSecret {
    /// Returns the secret if it applies to this hub. The hub name must be in lower case.
    pub(crate) fn of(&self, hub: &str) -> Option<&AccessKey> {
        self.hubs.matches(hub).then_some(&self.secret)
    }

    /// Hubs as in the setting.
    pub(crate) fn hubs(&self) -> &str {
        self.hubs.text()
    }

    /// Whether a hub of this pattern may have this secret.
    pub(crate) fn may_sign_for(&self, hubs: &Pattern) -> bool {
        self.hubs.may_share(hubs)
    }
}

impl FromStr for WebhookSecret {
    type Err = WebhookSecretError;

    fn from_str(text: &str) -> Result<Self, WebhookSecretError> {
        let (hubs, secret) = text.split_once('=').ok_or(WebhookSecretError::NoPair)?;
        let hubs = Pattern::new(&hubs.trim().to_ascii_lowercase()).map_err(|_| WebhookSecretError::NoPair)?;
        Ok(Self { hubs, secret: AccessKey::new(secret).map_err(WebhookSecretError::Secret)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret_file::SecretLine;
    use super::*;

    #[test]
    fn a_secret_is_for_the_hubs_that_it_names() {
        let secrets = WebhookSecret::lines("# Ours.\nChat = 0123456789abcdef==\n\nshop_*=fedcba9876543210\n").unwrap();
        let of = |hub: &str| secrets.iter().filter_map(|one| one.of(hub)).map(AccessKey::expose).collect::<Vec<_>>();
        assert_eq!(of("chat"), ["0123456789abcdef=="]);
        assert_eq!(of("shop_news"), ["fedcba9876543210"]);
        assert!(of("news").is_empty());
    }

    #[test]
    fn an_invalid_text_is_refused_and_not_shown() {
        for (text, line) in [("0123456789abcdef", 1), ("\n=0123456789abcdef", 2), ("a=b\nc=0123456789abcdef", 1)] {
            let (number, problem) = WebhookSecret::lines(text).unwrap_err();
            assert_eq!(number, line, "{text}");
            assert!(!problem.to_string().contains("0123456789abcdef"), "{problem}");
        }
    }
}
