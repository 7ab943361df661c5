//! Secrets in a table: inline, and in referenced files.

use std::path::PathBuf;

use trunkline_protocol::key::without_mark;

use super::toml_value::{TomlTable, TomlValue, read_beyond};
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Maximum number of secrets per kind and table. A key rotation needs two.
const SECRETS_MAX: usize = 16;

/// Maximum size of a secret file.
const FILE_MAX_BYTES: usize = 4096;

/// Takes inline secrets and those in referenced files, each with its value for error positions.
pub(super) fn secrets<'t>(
    table: &mut TomlTable<'t>,
    key: &'static str,
    file_key: &'static str,
) -> Result<Vec<(TomlValue<'t>, String)>, Fault> {
    let mut secrets = Vec::new();
    for item in table.take(key).map(|value| value.items(SECRETS_MAX)).transpose()?.unwrap_or_default() {
        secrets.push((item, item.text()?.to_owned()));
    }
    secrets.extend(secret_files(table, file_key)?);
    Ok(secrets)
}

pub(super) fn secret_files<'t>(
    table: &mut TomlTable<'t>,
    file_key: &'static str,
) -> Result<Vec<(TomlValue<'t>, String)>, Fault> {
    let mut secrets = Vec::new();
    for item in table.take(file_key).map(|value| value.items(SECRETS_MAX)).transpose()?.unwrap_or_default() {
        let path = PathBuf::from(item.text()?);
        let unread = |source| item.fault(RuleProblem::File { key: item.key, path: path.clone(), source });
        let text = read_beyond(&path, FILE_MAX_BYTES).map_err(unread)?;
        if text.len() > FILE_MAX_BYTES {
            return Err(item.fault(RuleProblem::NamedFileTooLarge { key: item.key, most: FILE_MAX_BYTES }));
        }
        secrets.push((item, without_mark(&text).to_owned()));
    }
    Ok(secrets)
}
