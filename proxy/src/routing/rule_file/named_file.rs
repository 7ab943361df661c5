//! Files referenced by a rules file, and whether it contains secrets. Works for invalid rules, too, as long as the text
//! is TOML.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::toml_value::read_beyond;

/// Keys of the file that contain rules.
pub const RULE_TABLES: [&str; 7] = ["groups", "routes", "messages", "mirrors", "methods", "app-keys", "issuers"];

/// Maximum size of the file, a hundred times the usual size.
pub(super) const FILE_MAX_BYTES: usize = 1024 * 1024;

/// Files referenced by the rules of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// Whether a rule contains a secret.
    pub has_secrets: bool,
    /// Files with access keys, and keys of apps and issuers.
    pub secrets: Vec<PathBuf>,
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
            "key" | "access-key" => self.has_secrets = true,
            "key-file" | "access-key-file" | "keys" => self.secrets.push(text.into()),
            "upstream-key" => self.private_keys.push(text.into()),
            "page" => self.pages.push(text.into()),
            _ => {}
        }
    }
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
            [issuers.staff]
            keys = ['f']
        ";
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut found = NamedFiles::parse(text).unwrap();
        found.secrets.sort();
        let expected = NamedFiles {
            has_secrets: false,
            secrets: paths(&["a", "b", "e", "f"]),
            private_keys: paths(&["c"]),
            pages: paths(&["d"]),
        };
        assert_eq!(found, expected);
        assert!(NamedFiles::parse("[app-keys.shop]\nkey = ['x']").unwrap().has_secrets);
        assert!(!NamedFiles::parse("access-key = 'of a flag'").unwrap().has_secrets);
        assert_eq!(NamedFiles::parse("[app-keys.shop"), None);
    }
}
