//! Secrets in a table: as texts, and in files that it names.

use std::path::PathBuf;

use super::toml_value::{TomlTable, TomlValue, read_beyond};
use crate::routing::rule_error::{Fault, RuleProblem};

/// Maximum number of secrets of a kind in a table. A change of keys needs two.
const SECRETS_MAX: usize = 16;

/// Maximum size of a file with a secret.
const FILE_MAX_BYTES: usize = 4096;

/// Takes the secrets of a key and those in the files of another, each with the value that gives it.
pub(super) fn secrets<'t>(
    table: &mut TomlTable<'t>,
    key: &'static str,
    file_key: &'static str,
) -> Result<Vec<(TomlValue<'t>, String)>, Fault> {
    let mut secrets = Vec::new();
    for item in table.take(key).map(|value| value.items(SECRETS_MAX)).transpose()?.unwrap_or_default() {
        secrets.push((item, item.text()?.to_owned()));
    }
    for item in table.take(file_key).map(|value| value.items(SECRETS_MAX)).transpose()?.unwrap_or_default() {
        let path = PathBuf::from(item.text()?);
        let unread = |source| item.fault(RuleProblem::File { key: item.key, path: path.clone(), source });
        let text = read_beyond(&path, FILE_MAX_BYTES).map_err(unread)?;
        if text.len() > FILE_MAX_BYTES {
            return Err(item.fault(RuleProblem::NamedFileTooLarge { key: item.key, most: FILE_MAX_BYTES }));
        }
        secrets.push((item, text));
    }
    Ok(secrets)
}
