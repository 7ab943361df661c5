//! Tables `[app-keys.NAME]`: app keys and their hubs.

use super::secret_entry::secrets;
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::auth::{APPS_MAX, AppKey};
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Maximum number of hubs of a key. A trailing `*` stands for any number.
const HUBS_MAX: usize = 100;

pub(super) fn app_keys(value: Option<TomlValue<'_>>) -> Result<Vec<AppKey>, Fault> {
    let mut keys = Vec::new();
    for (name, _, value) in value.map(|value| value.entries(APPS_MAX)).transpose()?.unwrap_or_default() {
        let mut table = TomlTable::new("an app's key", &value)?;
        let hubs = table.take("hubs").map(|value| value.items(HUBS_MAX)).transpose()?.unwrap_or_default();
        let hubs = hubs.iter().map(TomlValue::text).collect::<Result<Vec<_>, _>>()?;
        let is_shared = table.take("shared").map(|value| value.truth()).transpose()?.unwrap_or_default();
        let secrets = secrets(&mut table, "key", "key-file")?;
        if secrets.is_empty() {
            let advice = "give `key-file`, or `key`; `trunkline token key --app NAME` makes one";
            return Err(table.fault(RuleProblem::Missing { table: "an app's key", key: "key-file", advice }));
        }
        for (item, text) in secrets {
            let key = AppKey::new(name, &text, hubs.iter().copied());
            let key = key.map_err(|source| item.fault(RuleProblem::AppKey { app: name.to_owned(), source }))?;
            keys.push(key.shared(is_shared));
        }
        table.finish()?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use crate::ground::routing::RuleFile;

    const KEY: &str = "0123456789abcdef";

    fn problem(text: &str) -> String {
        RuleFile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_app_has_keys_of_its_own_for_the_hubs_that_it_names() {
        let path = std::env::temp_dir().join(format!("trunkline-app-key-{}", std::process::id()));
        std::fs::write(&path, format!("{KEY}-in-a-file\n")).unwrap();
        let text = format!(
            "[app-keys.shop]\nkey-file = {path:?}\nkey = \"{KEY}-old\"\nhubs = [\"shop\", \"orders*\"]\nshared = true\n[app-keys.news]\nkey = \"{KEY}\""
        );
        let keys = RuleFile::parse(&text).unwrap().access.app_keys;
        std::fs::remove_file(&path).unwrap();
        let shown: Vec<_> = keys.iter().map(|key| format!("{key} {}", key.key().expose())).collect();
        assert_eq!(
            shown,
            [
                format!("app key shop: hubs shop, orders*, shared {KEY}-old"),
                format!("app key shop: hubs shop, orders*, shared {KEY}-in-a-file"),
                format!("app key news: hubs news, news_* {KEY}"),
            ]
        );
    }

    #[test]
    fn a_table_that_makes_no_key_is_refused_with_its_place() {
        for (text, words) in [
            ("[app-keys.shop]\nhubs = \"shop\"", "an app's key has no key-file"),
            ("[app-keys.shop]\nkey = \"short\"", "line 2, column 7: the key of app \"shop\": access key has 5 bytes"),
            ("[app-keys.shop]\nkey-fil = \"x\"\nkey = \"0123456789abcdef\"", "is \"key-file\" meant?"),
            ("[app-keys.shop]\nkey-file = \"no-such-file\"", "key-file no-such-file can't be read"),
            ("[app-keys.\"a b\"]\nkey = \"0123456789abcdef\"", "the key of app \"a b\": has no name of an app"),
            ("[app-key.shop]\nkey = \"0123456789abcdef\"", "is \"app-keys\" meant?"),
        ] {
            let found = problem(text);
            assert!(found.contains(words) && !found.contains(KEY), "{found}");
        }
    }
}
