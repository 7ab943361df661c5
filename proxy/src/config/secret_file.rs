//! Files with keys, secrets or tokens that flags name: how they are read, and what may be wrong with them.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use trunkline_protocol::key::without_mark;

/// Error of a file with secrets. Its text has the cause, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
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
    /// The file holds something else.
    #[error("{flag} {path}{problem}")]
    Content {
        /// Flag that names the file.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Rest of the sentence, with what stands before it.
        problem: String,
    },
}

/// Secret that is written in a line of a file.
pub trait SecretLine: FromStr<Err: Display> + Clone {
    /// Flag that names such a file.
    const FLAG: &'static str;

    /// Reads the lines of a file, a secret each; empty lines and those that begin with `#` count for nothing.
    ///
    /// # Errors
    /// When a line is no secret of this kind, with its number.
    fn lines(text: &str) -> Result<Vec<Self>, (usize, Self::Err)> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(number, line)| line.parse().map_err(|problem| (number, problem))).collect()
    }
}

/// Reads what a file holds. The problem of its text is the rest of a sentence that begins with flag and path.
pub(super) fn read_secret<T>(
    flag: &'static str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SecretFileError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| SecretFileError::Read { flag, path: path.to_owned(), cause })?;
    parse(without_mark(&text)).map_err(|problem| SecretFileError::Content { flag, path: path.to_owned(), problem })
}

/// Reads the secrets in the lines of a file; `None` if the file is empty. A file with only comments is valid.
pub(super) fn read_secrets<T: SecretLine>(path: &Path) -> Result<Option<Vec<T>>, SecretFileError> {
    let parse = |text: &str| {
        let lines = T::lines(text).map_err(|(line, cause)| format!(", line {line}: {cause}"))?;
        Ok((!text.trim().is_empty()).then_some(lines))
    };
    read_secret(T::FLAG, path, parse)
}

/// Error of a file that was emptied, perhaps for a moment while somebody writes it.
pub(super) fn emptied<T: SecretLine>(path: &Path) -> SecretFileError {
    let problem = " is empty, and had keys before: write a comment (`# none`) into it to take them away".to_owned();
    SecretFileError::Content { flag: T::FLAG, path: path.to_owned(), problem }
}
