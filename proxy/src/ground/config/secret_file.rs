//! Files with keys, secrets or tokens that flags name: how to read them, and their errors.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use trunkline_protocol::key::without_mark;

/// Error of reading a secret file. The text has the cause, but no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file can't be read.
    #[error("{flag} {path} can't be read ({cause})")]
    Read {
        /// Flag that names the file.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        cause: std::io::Error,
    },
    /// The content of the file is invalid.
    #[error("{flag} {path}{problem}")]
    Content {
        /// Flag that names the file.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Rest of the sentence after flag and path, including punctuation.
        problem: String,
    },
}

/// Secret on one line of a file.
pub trait SecretLine: FromStr<Err: Display> + Clone {
    /// Flag that names such a file.
    const FLAG: &'static str;

    /// Parses the lines of a file, one secret per line. Empty lines and lines starting with `#` are skipped.
    ///
    /// # Errors
    /// Returns the number of the first invalid line, with its error.
    fn lines(text: &str) -> Result<Vec<Self>, (usize, Self::Err)> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(number, line)| line.parse().map_err(|problem| (number, problem))).collect()
    }
}

/// Reads and parses a file. An error text of `parse` continues a sentence that starts with flag and path.
pub(super) fn read_secret<T>(
    flag: &'static str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SecretFileError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| SecretFileError::Read { flag, path: path.to_owned(), cause })?;
    parse(without_mark(&text)).map_err(|problem| SecretFileError::Content { flag, path: path.to_owned(), problem })
}

/// Reads the secrets on the lines of a file; `None` if the file has no secret, and no line `# none` that says so.
pub(super) fn read_secrets<T: SecretLine>(path: &Path) -> Result<Option<Vec<T>>, SecretFileError> {
    let parse = |text: &str| {
        let lines = T::lines(text).map_err(|(line, cause)| format!(", line {line}: {cause}"))?;
        let is_none = |line: &str| line.trim_start_matches(['#', ' ']).to_ascii_lowercase().starts_with("none");
        let says_none = text.lines().any(|line| line.starts_with('#') && is_none(line));
        Ok((says_none || !lines.is_empty()).then_some(lines))
    };
    read_secret(T::FLAG, path, parse)
}

/// Error for a file that was emptied, perhaps while it is being rewritten.
pub(super) fn emptied<T: SecretLine>(path: &Path) -> SecretFileError {
    let problem =
        " is empty, but had keys before (comments are none): to remove all keys write the line `# none` into \
                   the file"
            .to_owned();
    SecretFileError::Content { flag: T::FLAG, path: path.to_owned(), problem }
}
