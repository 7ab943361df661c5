//! Tables `[issuers.NAME]`: issuers of access tokens, their keys, and the hubs at which their tokens are accepted.

use super::secret_entry::secret_files;
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::auth::{ISSUERS_MAX, Issuer, JwksSource, VerifyingKey};
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Maximum number of entries of a list.
const ITEMS_MAX: usize = 100;

/// Maximum number of key sets of an issuer. A move from one URL to another needs two.
const SETS_MAX: usize = 4;

/// Name of this type of table in error texts.
const TABLE: &str = "an issuer";

pub(super) fn issuers(value: Option<TomlValue<'_>>) -> Result<Vec<Issuer>, Fault> {
    let entries = value.map(|value| value.entries(ISSUERS_MAX)).transpose()?.unwrap_or_default();
    entries.into_iter().map(|(name, _, value)| issuer(name, &value)).collect()
}

fn issuer(name: &str, value: &TomlValue<'_>) -> Result<Issuer, Fault> {
    let mut table = TomlTable::new(TABLE, value)?;
    let named = table.require("issuer", "give the `iss` of its tokens exactly")?;
    let mut issuer = Issuer { name: name.to_owned(), issuers: texts(Some(named), ITEMS_MAX)?, ..Issuer::default() };
    issuer.audiences = texts(table.take("audiences"), ITEMS_MAX)?;
    if let Some(hubs) = table.take("hubs") {
        let names = texts(Some(hubs), ITEMS_MAX)?;
        let refused = |source| hubs.fault(RuleProblem::IssuerHubs { issuer: name.to_owned(), source });
        issuer.set_hubs(names.iter().map(String::as_str)).map_err(refused)?;
    }
    for (item, text) in secret_files(&mut table, "keys")? {
        let key = VerifyingKey::from_text(&text);
        let key = key.map_err(|source| item.fault(RuleProblem::IssuerKey { issuer: name.to_owned(), source }))?;
        if key.is_secret() && issuer.secret.is_none() {
            issuer.secret = Some(text.trim().to_owned());
        }
        issuer.keys.push(key);
        issuer.files.push(item.text()?.to_owned());
    }
    for item in table.take("jwks").map(|value| value.items(SETS_MAX)).transpose()?.unwrap_or_default() {
        let refused = |source| item.fault(RuleProblem::IssuerJwks { issuer: name.to_owned(), source });
        issuer.jwks.push(item.text()?.parse::<JwksSource>().map_err(refused)?);
    }
    if issuer.keys.is_empty() && issuer.jwks.is_empty() {
        let advice = "name files with its keys, or give `jwks`";
        return Err(table.fault(RuleProblem::Missing { table: TABLE, key: "keys", advice }));
    }
    table.finish()?;
    Ok(issuer)
}

fn texts(value: Option<TomlValue<'_>>, most: usize) -> Result<Vec<String>, Fault> {
    let items = value.map(|value| value.items(most)).transpose()?.unwrap_or_default();
    items.iter().map(|item| item.text().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use crate::ground::routing::RuleFile;

    #[test]
    fn an_issuer_has_keys_audiences_and_hubs_and_shows_no_secret() {
        let file = std::env::temp_dir().join(format!("trunkline-issuer-key-{}", std::process::id()));
        std::fs::write(&file, "a secret that is long enough\n").unwrap();
        let text = format!(
            "[issuers.shop]\nkeys = {file:?}\nissuer = 'https://shop'\naudiences = 'shop'\nhubs = ['shop', 'Orders*']\n
             [issuers.staff]\njwks = 'https://staff.example/keys?secret'\nissuer = ['https://staff', 'staff']"
        );
        let tables = RuleFile::parse(&text).unwrap().access;
        std::fs::remove_file(&file).unwrap();
        let signing = tables.issuers[0].signing().unwrap();
        assert_eq!((signing.0, signing.1), ("a secret that is long enough", "https://shop"));
        assert!(tables.issuers[1].signing().is_none());
        let lines: Vec<_> = tables.lines().collect();
        assert_eq!(
            lines,
            [
                &*format!(
                    "issuer shop: iss https://shop, audiences shop, hubs shop, orders*, keys in 1 files, {}: secret (HS256)",
                    file.display()
                ),
                "issuer staff: iss https://staff, staff, audiences any, all hubs, keys in 0 files, \
                 jwks https://staff.example/keys?…",
            ]
        );
    }

    #[test]
    fn a_table_that_describes_no_issuer_is_refused_with_its_place() {
        for (rest, words) in [
            ("jwks = 'https://a/keys'", "an issuer has no issuer"),
            ("issuer = 'a'", "an issuer has no keys"),
            ("issuer = 'a'\nkeys = 'no-such-file'", "keys no-such-file can't be read"),
            ("issuer = 'a'\njwks = 'ftp://a'", "line 3, column 8: the key set of issuer \"a\": \"ftp://a\" is neither"),
            ("issuer = 'a'\njwks = 'https://a/k'\nhubs = 'a*b'", "the hubs of issuer \"a\": names a hub \"a*b\""),
            ("issuer = 'a'\njwks = 'https://a/k'\nhub = 'a'", "is \"hubs\" meant?"),
            ("issuer = 'a'\njwks = 'https://a/k'\nhubs = []", "hubs is an empty list"),
        ] {
            let found = RuleFile::parse(&format!("[issuers.a]\n{rest}")).unwrap_err().to_string();
            assert!(found.contains(words), "{found}");
        }
    }
}
