//! Secrets of webhooks that flags give, and the files that flags name.

use std::path::PathBuf;

use super::webhook_secret::{WebhookSecret, WebhookSecretError};

/// Sources of the secrets of webhooks.
#[derive(Debug, Clone, Default)]
pub struct WebhookSecretSources {
    /// Secrets that flags give themselves.
    pub typed: Vec<WebhookSecret>,
    /// Files with a secret on each line, which are read anew when they change.
    pub files: Vec<PathBuf>,
}

/// Error of a file of secrets of webhooks. Its text has the cause, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSecretFileError {
    /// The file can't be read.
    #[error("--webhook-secret-file {path} can't be read ({cause})")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Reason of the system.
        cause: std::io::Error,
    },
    /// A line is no secret of a webhook.
    #[error("--webhook-secret-file {path}, line {line}: {cause}")]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Problem with the line.
        cause: WebhookSecretError,
    },
}

impl WebhookSecretSources {
    /// Returns all secrets, those of the files as they are now.
    ///
    /// # Errors
    /// When a file can't be read, or has a line that is no secret.
    pub fn read(&self) -> Result<Vec<WebhookSecret>, WebhookSecretFileError> {
        let mut secrets = self.typed.clone();
        for path in &self.files {
            let text = std::fs::read_to_string(path)
                .map_err(|cause| WebhookSecretFileError::Read { path: path.clone(), cause })?;
            let lines = WebhookSecret::lines(&text);
            let bad = |(line, cause)| WebhookSecretFileError::Line { path: path.clone(), line, cause };
            secrets.extend(lines.map_err(bad)?);
        }
        Ok(secrets)
    }
}
