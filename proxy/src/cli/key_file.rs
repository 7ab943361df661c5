//! `trunkline token key --file`: a key that is made once, where containers and services of a machine find it.

use std::io;
use std::path::{Path, PathBuf};

use trunkline_protocol::development_key::{DevelopmentKeyError, read_or_make};
use trunkline_protocol::key::AccessKeyError;

/// Why there is no key in that file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It can't be read or made.
    #[error("--file {path} can't be read or made: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("--file {path} holds something that is no key ({source}), and stays as it is")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: AccessKeyError,
    },
}

/// Makes it, unless there is one.
///
/// # Errors
/// When the file can neither be read nor made, or holds no key.
pub fn make_key_file(path: &Path) -> Result<(), KeyFileError> {
    let path = path.to_owned();
    // Whoever starts first makes it, as it is with the development key.
    match read_or_make(&path) {
        Ok(_) => Ok(()),
        Err(DevelopmentKeyError::File { source, .. }) => Err(KeyFileError::File { path, source }),
        Err(DevelopmentKeyError::Damaged { source, .. }) => Err(KeyFileError::Damaged { path, source }),
        Err(other) => Err(KeyFileError::File { path, source: io::Error::other(other) }),
    }
}
