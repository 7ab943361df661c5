//! Sources of all keys and secrets that a node reads anew while it runs.

use std::path::PathBuf;

use super::access_key_source::AccessKeySources;
use super::admin_token_source::AdminTokenSource;
use super::app_key_source::AppKeySources;
use super::token_key_source::TokenKeySources;
use super::webhook_secret_source::WebhookSecretSources;

/// Sources of the keys of a node, the secrets of its webhooks and the token of its admin port.
#[derive(Debug, Clone, Default)]
pub struct SecretSources {
    /// Access keys and the files with them.
    pub access: AccessKeySources,
    /// Keys of apps outside the configuration file.
    pub apps: AppKeySources,
    /// Secrets of webhooks and the files with them.
    pub webhooks: WebhookSecretSources,
    /// Keys of other issuers of access tokens.
    pub tokens: TokenKeySources,
    /// File of the admin token, if it is in one.
    pub admin: Option<AdminTokenSource>,
}

impl SecretSources {
    /// Files to be read anew when they change.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let keys = self.access.files.iter().chain(&self.apps.files).chain(&self.webhooks.files);
        let of_tokens = self.tokens.secrets.iter().chain(&self.tokens.public_keys);
        keys.chain(of_tokens).chain(self.admin.as_ref().map(|admin| &admin.file))
    }
}
