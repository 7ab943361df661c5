//! File with the token of the admin port, which is read anew while the node runs.

use std::path::{Path, PathBuf};

use crate::auth::{AdminToken, AdminTokenInForce};

/// File of the admin token, and the token that a reload replaces.
#[derive(Debug, Clone)]
pub struct AdminTokenSource {
    /// Path of the file.
    pub file: PathBuf,
    /// Token that the admin port has.
    pub in_force: AdminTokenInForce,
}

/// Error of the file of an admin token. Its text has the cause, and no token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenFileError {
    /// The file can't be read.
    #[error("--admin-token-file {path} can't be read ({cause})")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Reason of the system.
        cause: std::io::Error,
    },
    /// Its text is no token.
    #[error("--admin-token-file {0}")]
    Token(&'static str),
}

impl AdminTokenSource {
    /// Reads the token of a file as it is now.
    ///
    /// # Errors
    /// When the file can't be read, or holds no token.
    pub fn read(file: &Path) -> Result<AdminToken, AdminTokenFileError> {
        let text = std::fs::read_to_string(file)
            .map_err(|cause| AdminTokenFileError::Read { path: file.to_owned(), cause })?;
        AdminToken::new(&text).map_err(AdminTokenFileError::Token)
    }
}
