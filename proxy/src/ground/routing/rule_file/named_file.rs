//! Files referenced by a rules file, and whether it contains secrets: of any TOML text, even if its rules are invalid.
//! Also reads the secrets of a table, inline or from the referenced files.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use trunkline_protocol::key::without_mark;

use super::toml_value::{TomlTable, TomlValue, read_beyond};
use crate::ground::auth::key::is_pem;
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Keys of the file that contain rules.
pub const RULE_TABLES: [&str; 9] =
    ["groups", "routes", "messages", "mirrors", "methods", "history", "webhooks", "app-keys", "issuers"];

/// Maximum size of the file, a hundred times the usual size.
pub(super) const FILE_MAX_BYTES: usize = 1024 * 1024;

/// Files referenced by the rules of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// Whether a rule contains a secret.
    pub has_secrets: bool,
    /// Files with access keys, keys of apps and headers of webhooks.
    pub secrets: Vec<PathBuf>,
    /// Files with keys of issuers: secrets, or public keys.
    pub issuer_keys: Vec<PathBuf>,
    /// Files with key sets of issuers.
    pub key_sets: Vec<PathBuf>,
    /// Files with private TLS keys.
    pub private_keys: Vec<PathBuf>,
    /// Files with rejection pages.
    pub pages: Vec<PathBuf>,
}

impl NamedFiles {
    /// Reads the references of a rules file; `None` if it is unreadable or not TOML.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        read_beyond(path, FILE_MAX_BYTES).ok().and_then(|text| Self::parse(&text))
    }

    /// Files with secrets. A key of an issuer is a secret unless its file has a public key.
    pub fn secret_files(&self) -> impl Iterator<Item = &PathBuf> {
        let is_secret = |path: &&PathBuf| !read_beyond(path, FILE_MAX_BYTES).is_ok_and(|text| is_pem(&text));
        self.secrets.iter().chain(&self.private_keys).chain(self.issuer_keys.iter().filter(is_secret))
    }

    fn parse(text: &str) -> Option<Self> {
        let document = DeTable::parse(text).ok()?;
        let mut files = Self::default();
        let rules = document.get_ref().iter().filter(|(name, _)| RULE_TABLES.contains(&&**name.get_ref()));
        for (name, value) in rules {
            files.walk(name.get_ref(), value.get_ref());
        }
        Some(files)
    }

    fn walk(&mut self, key: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => {
                table.iter().for_each(|(key, value)| self.walk(&key.get_ref().replace('_', "-"), value.get_ref()));
            }
            DeValue::Array(items) => items.iter().for_each(|item| self.walk(key, item.get_ref())),
            DeValue::String(text) => self.note(key, text),
            _ => {}
        }
    }

    fn note(&mut self, key: &str, text: &str) {
        match key {
            "key" | "access-key" | "headers" => self.has_secrets = true,
            "key-file" | "access-key-file" | "headers-file" => self.secrets.push(text.into()),
            "keys" => self.issuer_keys.push(text.into()),
            "jwks" if !text.contains("://") => self.key_sets.push(text.into()),
            "upstream-key" => self.private_keys.push(text.into()),
            "page" => self.pages.push(text.into()),
            _ => {}
        }
    }
}

/// Maximum number of secrets per kind and table. A key rotation needs two.
const SECRETS_MAX: usize = 16;

/// Maximum size of a secret file.
const SECRET_FILE_MAX_BYTES: usize = 4096;

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
        let text = read_beyond(&path, SECRET_FILE_MAX_BYTES).map_err(unread)?;
        if text.len() > SECRET_FILE_MAX_BYTES {
            return Err(item.fault(RuleProblem::NamedFileTooLarge { key: item.key, most: SECRET_FILE_MAX_BYTES }));
        }
        secrets.push((item, without_mark(&text).to_owned()));
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_secrets_of_all_rules_are_found_though_the_rules_make_no_sense() {
        let text = "
            access-key-file = 'of a flag'
            [groups.key]
            access_key_file = ['a', 'b']
            upstream-key = 'c'
            [[routes]]
            page = 'd'
            reject = 'nonsense'
            [app-keys.shop]
            key-file = 'e'
            [webhooks.chat]
            headers-file = 'h'
            [issuers.staff]
            keys = ['f']
            jwks = ['g', 'https://issuer.example/keys']
        ";
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut found = NamedFiles::parse(text).unwrap();
        found.secrets.sort();
        let expected = NamedFiles {
            has_secrets: false,
            secrets: paths(&["a", "b", "e", "h"]),
            issuer_keys: paths(&["f"]),
            key_sets: paths(&["g"]),
            private_keys: paths(&["c"]),
            pages: paths(&["d"]),
        };
        assert_eq!(found, expected);
        assert!(NamedFiles::parse("[app-keys.shop]\nkey = ['x']").unwrap().has_secrets);
        assert!(NamedFiles::parse("[webhooks.chat]\nheaders = ['X-A: x']").unwrap().has_secrets);
        assert!(!NamedFiles::parse("access-key = 'of a flag'").unwrap().has_secrets);
        assert_eq!(NamedFiles::parse("[app-keys.shop"), None);
    }

    #[test]
    fn a_public_key_of_an_issuer_is_no_secret() {
        let path = |name: &str| std::env::temp_dir().join(format!("trunkline-{name}-{}", std::process::id()));
        let (public, secret) = (path("public-key"), path("issuer-secret"));
        std::fs::write(&public, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
        std::fs::write(&secret, "a secret that is long enough").unwrap();
        let files = NamedFiles::parse(&format!("[issuers.staff]\nkeys = [{public:?}, {secret:?}]")).unwrap();
        assert_eq!(files.secret_files().collect::<Vec<_>>(), [&secret]);
        [public, secret].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
