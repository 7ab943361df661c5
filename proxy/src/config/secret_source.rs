//! Sources of all keys and secrets that a node reads anew while it runs.

use std::path::PathBuf;

use super::access_key_source::AccessKeySources;
use super::app_key_source::AppKeySources;
use super::webhook_secret_source::WebhookSecretSources;

/// Sources of the keys of a node and of the secrets of its webhooks.
#[derive(Debug, Clone, Default)]
pub struct SecretSources {
    /// Access keys and the files with them.
    pub access: AccessKeySources,
    /// Keys of apps outside the configuration file.
    pub apps: AppKeySources,
    /// Secrets of webhooks and the files with them.
    pub webhooks: WebhookSecretSources,
}

impl SecretSources {
    /// Files to be read anew when they change.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.access.files.iter().chain(&self.apps.files).chain(&self.webhooks.files)
    }
}
