//! Tables `[app-keys.NAME]`: keys of apps. Tables `[issuers.NAME]`: issuers of access tokens, their keys, and the hubs
//! at which their tokens are accepted.

use super::named_file::{secret_files, secrets};
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::auth::{APPS_MAX, AppKey, ISSUERS_MAX, Issuer, JwksSource, VerifyingKey};
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
        let refused = |problem| hubs.fault(RuleProblem::IssuerHubs { issuer: name.to_owned(), problem });
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
        let refused = |problem| item.fault(RuleProblem::IssuerJwks { issuer: name.to_owned(), problem });
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

/// Maximum number of hubs of a key. A trailing `*` stands for any number.
const HUBS_MAX: usize = 100;

/// Tables `[app-keys.NAME]`: app keys and their hubs.
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
            let key = key.map_err(|problem| item.fault(RuleProblem::AppKey { app: name.to_owned(), problem }))?;
            keys.push(key.shared(is_shared));
        }
        table.finish()?;
    }
    Ok(keys)
}
