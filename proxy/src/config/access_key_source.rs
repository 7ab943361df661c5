//! Access keys that flags give, and the files that flags name.

use std::path::PathBuf;

use trunkline_protocol::key::{AccessKey, AccessKeyError};

/// Sources of the access keys; none for the development key.
#[derive(Debug, Clone, Default)]
pub struct AccessKeySources {
    /// Keys that flags give themselves.
    pub typed: Vec<AccessKey>,
    /// Files with a key each, which are read anew when they change.
    pub files: Vec<PathBuf>,
}

/// Error of a file with an access key. Its text has the cause.
#[derive(Debug, thiserror::Error)]
pub enum AccessKeyFileError {
    /// The file can't be read.
    #[error("--access-key-file {path} can't be read ({cause})")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Reason of the system.
        cause: std::io::Error,
    },
    /// The file holds something else.
    #[error("--access-key-file {path}: {cause}")]
    Key {
        /// Path of the file.
        path: PathBuf,
        /// Problem with its text.
        cause: AccessKeyError,
    },
}

impl AccessKeySources {
    /// Whether no flag gives or names a key: the node has one of its own making.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.typed.is_empty() && self.files.is_empty()
    }

    /// Returns all keys, those of the files as they are now.
    ///
    /// # Errors
    /// When a file can't be read, or holds no key.
    pub fn read(&self) -> Result<Vec<AccessKey>, AccessKeyFileError> {
        let in_files = self.files.iter().map(|path| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|cause| AccessKeyFileError::Read { path: path.clone(), cause })?;
            AccessKey::new(&text).map_err(|cause| AccessKeyFileError::Key { path: path.clone(), cause })
        });
        self.typed.iter().cloned().map(Ok).chain(in_files).collect()
    }
}
