//! Keys of other issuers of access tokens, and the files that flags name.

use std::path::{Path, PathBuf};

use crate::auth::VerifyingKey;
use crate::auth::key::KeyError;

/// Sources of the keys of other issuers: a key in each file, which is read anew when it changes.
#[derive(Debug, Clone, Default)]
pub struct TokenKeySources {
    /// Files with secrets, for HS256.
    pub secrets: Vec<PathBuf>,
    /// PEM files with public keys, for RS256 and ES256.
    pub public_keys: Vec<PathBuf>,
}

/// Error of a file with a key of an issuer. Its text has the cause, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyFileError {
    /// The file can't be read.
    #[error("{flag} {path} can't be read ({cause})")]
    Read {
        /// Flag that names the file.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason of the system.
        cause: std::io::Error,
    },
    /// The file has no key.
    #[error("{flag} {path} {cause}")]
    Key {
        /// Flag that names the file.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Problem with its text.
        cause: KeyError,
    },
}

impl TokenKeySources {
    /// Returns all keys, as the files are now.
    ///
    /// # Errors
    /// When a file can't be read, or holds no key.
    pub fn read(&self) -> Result<Vec<VerifyingKey>, TokenKeyFileError> {
        let secrets = self.secrets.iter().map(|path| key("--jwt-secret-file", path, VerifyingKey::from_secret));
        let public = self.public_keys.iter().map(|path| key("--jwt-public-key", path, VerifyingKey::from_pem));
        secrets.chain(public).collect()
    }

    /// Whether no file is named.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.public_keys.is_empty()
    }
}

fn key(
    flag: &'static str,
    path: &Path,
    parse: impl Fn(&str) -> Result<VerifyingKey, KeyError>,
) -> Result<VerifyingKey, TokenKeyFileError> {
    let unread = |cause| TokenKeyFileError::Read { flag, path: path.into(), cause };
    let text = std::fs::read_to_string(path).map_err(unread)?;
    parse(&text).map_err(|cause| TokenKeyFileError::Key { flag, path: path.into(), cause })
}
