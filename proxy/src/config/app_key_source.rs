//! Keys of apps that flags give, and the files that flags name.

use std::path::PathBuf;

use crate::auth::{AppKey, AppKeyError};

/// Sources of apps' keys outside the configuration file.
#[derive(Debug, Clone, Default)]
pub struct AppKeySources {
    /// Keys that flags give themselves.
    pub typed: Vec<AppKey>,
    /// Files with a key on each line, which are read anew when they change.
    pub files: Vec<PathBuf>,
}

/// Error of a file of apps' keys. Its text has the cause.
#[derive(Debug, thiserror::Error)]
pub enum AppKeyFileError {
    /// The file can't be read.
    #[error("--app-key-file {path} can't be read ({cause})")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Reason of the system.
        cause: std::io::Error,
    },
    /// A line is no key of an app.
    #[error("--app-key-file {path}, line {line}: {cause}")]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Problem with the line.
        cause: AppKeyError,
    },
}

impl AppKeySources {
    /// Returns all keys, those of the files as they are now.
    ///
    /// # Errors
    /// When a file can't be read, or has a line that is no key.
    pub fn read(&self) -> Result<Vec<AppKey>, AppKeyFileError> {
        let mut keys = self.typed.clone();
        for path in &self.files {
            let text =
                std::fs::read_to_string(path).map_err(|cause| AppKeyFileError::Read { path: path.clone(), cause })?;
            let lines = AppKey::lines(&text);
            keys.extend(lines.map_err(|(line, cause)| AppKeyFileError::Line { path: path.clone(), line, cause })?);
        }
        Ok(keys)
    }
}
