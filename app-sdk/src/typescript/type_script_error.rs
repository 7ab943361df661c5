//! Error of a file of TypeScript types.

use std::path::PathBuf;

/// Error of a file of TypeScript types.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypeScriptError {
    /// Two types of Rust have one name in TypeScript.
    #[error("two types are named `{0}`: give one of them `#[ts(rename = \"…\")]`")]
    DuplicateType(String),
    /// The file is not the one that the hubs make now.
    #[error("{0} is not current: write it again, by `TypeScript::write`")]
    Outdated(PathBuf),
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
}
