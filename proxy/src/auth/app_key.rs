//! Keys of apps: each opens the hubs that it names for one app, and nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use trunkline_protocol::key::{AccessKey, AccessKeyError};

/// Maximum length of the name of an app, and of a hub.
const NAME_MAX_BYTES: usize = 256;

/// Character at the end of a name that stands for whatever follows.
const STAR: char = '*';

/// Error of a text that is no key of an app. The key is in none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppKeyError {
    /// The text has no key.
    #[error("is no `NAME=KEY` or `NAME=KEY;HUB;HUB`, such as `shop=…;shop;orders`")]
    NoPair,
    /// The app has no name that could be shown.
    #[error("has no name of an app before its `=`: a name has 1 to {NAME_MAX_BYTES} letters, digits, `-`, `_` and `.`")]
    Name,
    /// A list of hubs names none. Without the list the key would be good for more than one that is meant.
    #[error("has a `;` behind its key and no hub: name the hubs, or leave the `;` out for those of the app's own name")]
    NoHubs,
    /// A hub has no name.
    #[error(
        "names a hub {0:?}; a name has 1 to {NAME_MAX_BYTES} bytes, and a `*` at its end stands for whatever follows"
    )]
    Hub(String),
    /// The key can't be used.
    #[error("{0}")]
    Key(AccessKeyError),
}

/// Maximum number of apps with keys of their own. A token is tried with all keys of its hub, a channel with all keys.
pub(crate) const APPS_MAX: usize = 250;

/// Error of apps' keys that can't be in force together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppKeySetError {
    /// An app opens the hubs of another one, because it names none of its own.
    #[error(
        "app {wide:?} names no hubs, so its key opens all whose names begin with \"{wide}_\", and with them those of app \
         {other:?}: name the hubs of {wide:?} (`{wide}=KEY;HUB;HUB`, or `hubs` in [app-keys.{wide}]), or rename one of \
         the apps"
    )]
    Overlap {
        /// App whose key opens too much.
        wide: String,
        /// App whose hubs it opens.
        other: String,
    },
    /// The key of an app is one of the fleet: whoever has it would be a node and an operator.
    #[error(
        "the key of app {0:?} is an access key of the fleet, which opens everything: give the app one of its own \
         (`trunkline token key --app NAME` makes it)"
    )]
    IsAccessKey(String),
    /// There are more apps than a node takes.
    #[error(
        "{0} apps have keys of their own (--app-key, --app-key-file, [app-keys.NAME]), and a fleet takes {APPS_MAX}: \
         give the others a fleet of their own, or one name and key to apps of the same team"
    )]
    TooMany(usize),
}

/// Hubs for which a key is good: names, and beginnings of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubScope {
    names: Arc<[Box<str>]>,
    /// Whether they follow from the name of the app, and nobody has named them.
    is_default: bool,
}

impl HubScope {
    /// Checks the names of hubs. Without any, the app's own name is the hub and the application before hubs' names, as
    /// Azure's SDK joins them.
    ///
    /// # Errors
    /// When a name is none.
    pub(crate) fn new<'a>(app: &str, hubs: impl IntoIterator<Item = &'a str>) -> Result<Self, AppKeyError> {
        let is_name = |hub: &str| {
            let plain = hub.strip_suffix(STAR).unwrap_or(hub);
            (1..=NAME_MAX_BYTES).contains(&hub.len()) && !plain.contains(STAR) && !hub.contains(char::is_control)
        };
        let mut names = Vec::new();
        for hub in hubs {
            if !is_name(hub) {
                return Err(AppKeyError::Hub(hub.to_owned()));
            }
            names.push(hub.to_ascii_lowercase().into());
        }
        let is_default = names.is_empty();
        if is_default {
            let app = app.to_ascii_lowercase();
            names = vec![app.as_str().into(), format!("{app}_{STAR}").into()];
        }
        Ok(Self { names: names.into(), is_default })
    }

    /// Whether a hub is among them; case does not count.
    #[must_use]
    pub(crate) fn holds(&self, hub: &str) -> bool {
        self.closeness(hub).is_some()
    }

    /// How closely a hub is named: by how many bytes, or whole. `None` if it is not.
    #[must_use]
    pub(crate) fn closeness(&self, hub: &str) -> Option<usize> {
        let hub = hub.to_ascii_lowercase();
        let closeness = |name: &str| match name.strip_suffix(STAR) {
            Some(beginning) => hub.starts_with(beginning).then_some(beginning.len()),
            None => (*name == *hub).then_some(usize::MAX),
        };
        self.names.iter().filter_map(|name| closeness(name)).max()
    }
}

impl fmt::Display for HubScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))
    }
}

/// Key of an app. Two of one name are both good: so a key is changed without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppKey {
    pub(crate) name: Arc<str>,
    pub(crate) key: AccessKey,
    pub(crate) hubs: HubScope,
}

impl AppKey {
    /// Checks the parts of an app's key.
    ///
    /// # Errors
    /// When a part makes no sense.
    pub(crate) fn new<'a>(name: &str, key: &str, hubs: impl IntoIterator<Item = &'a str>) -> Result<Self, AppKeyError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=NAME_MAX_BYTES).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(AppKeyError::Name);
        }
        let key = AccessKey::new(key).map_err(AppKeyError::Key)?;
        Ok(Self { name: name.into(), key, hubs: HubScope::new(name, hubs)? })
    }

    /// Checks that keys can be in force together, beside those of the fleet: that there are not too many apps, that
    /// none has a key of the fleet, and that no key opens the hubs of another app only because of the names of the two.
    ///
    /// # Errors
    /// When they can't.
    pub fn check_all<'a>(
        keys: impl Iterator<Item = &'a Self> + Clone,
        fleet: &[AccessKey],
    ) -> Result<(), AppKeySetError> {
        if let Some(app) = keys.clone().find(|app| fleet.contains(&app.key)) {
            return Err(AppKeySetError::IsAccessKey(app.name.to_string()));
        }
        let names: BTreeSet<_> = keys.clone().map(|key| key.name.to_ascii_lowercase()).collect();
        if names.len() > APPS_MAX {
            return Err(AppKeySetError::TooMany(names.len()));
        }
        for wide in keys.filter(|key| key.hubs.is_default) {
            let beginning = format!("{}_", wide.name.to_ascii_lowercase());
            if let Some(other) = names.range(beginning.clone()..).next().filter(|name| name.starts_with(&beginning)) {
                return Err(AppKeySetError::Overlap { wide: wide.name.to_string(), other: other.clone() });
            }
        }
        Ok(())
    }

    /// Name of the app.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The secret that the app signs with.
    #[must_use]
    pub fn key(&self) -> &AccessKey {
        &self.key
    }
}

impl fmt::Display for AppKey {
    /// Writes all of it but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app key {}: hubs {}", self.name, self.hubs)
    }
}

impl FromStr for AppKey {
    type Err = AppKeyError;

    fn from_str(text: &str) -> Result<Self, AppKeyError> {
        let (name, rest) = text.split_once('=').ok_or(AppKeyError::NoPair)?;
        let (key, list) = rest.split_once(';').map_or((rest, None), |(key, list)| (key, Some(list)));
        let key = Some(key.trim()).filter(|key| !key.is_empty()).ok_or(AppKeyError::NoPair)?;
        let hubs = list.unwrap_or_default().split(';').map(str::trim).filter(|hub| !hub.is_empty());
        if list.is_some() && hubs.clone().next().is_none() {
            return Err(AppKeyError::NoHubs);
        }
        Self::new(name.trim(), key, hubs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123==";

    fn key(text: &str) -> Result<AppKey, String> {
        text.replace("KEY", KEY).parse::<AppKey>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_for_the_hubs_that_it_names_or_for_those_of_the_name_of_its_app() {
        let holds = |text: &str, hub: &str| key(text).unwrap().hubs.holds(hub);
        for hub in ["shop", "Shop", "shop_chat", "SHOP_chat"] {
            assert!(holds("Shop=KEY", hub), "{hub}");
        }
        for hub in ["shops", "shop-chat", "orders", "", "xshop"] {
            assert!(!holds("shop=KEY", hub), "{hub}");
        }
        let text = " shop = KEY ; orders; cart* ;";
        assert!(holds(text, "Orders") && holds(text, "cart") && holds(text, "carts"));
        assert!(!holds(text, "shop") && !holds(text, "orders_1") && !holds(text, "a_cart"));
        assert!(holds("ops=KEY;*", "any"));
        assert_eq!(key(text).unwrap().key.expose(), KEY, "equals signs are a part of it");
    }

    #[test]
    fn a_text_that_is_no_key_of_an_app_is_refused_without_showing_the_key() {
        for (text, words) in [
            ("shop", "is no `NAME=KEY`"),
            ("shop=", "is no `NAME=KEY`"),
            ("=KEY", "has no name of an app"),
            ("a b=KEY", "has no name of an app"),
            ("shop=KEY;a*b", "a hub \"a*b\""),
            ("shop=KEY;", "and no hub"),
            ("shop=KEY; ;", "and no hub"),
            ("shop=short;orders", "access key has 5 bytes, at least 16"),
        ] {
            let problem = key(text).unwrap_err();
            assert!(problem.contains(words) && !problem.contains(KEY), "{text}: {problem}");
        }
        let shown = format!("{} {:?}", key("shop=KEY").unwrap(), key("shop=KEY").unwrap());
        assert!(shown.starts_with("app key shop: hubs shop, shop_* ") && !shown.contains(KEY), "{shown}");
    }

    #[test]
    fn an_app_without_hubs_does_not_open_those_of_an_app_with_a_longer_name() {
        let overlap = |texts: &[&str]| {
            let keys: Vec<_> = texts.iter().map(|text| key(text).unwrap()).collect();
            AppKey::check_all(keys.iter(), &[]).err()
        };
        let found = Some(AppKeySetError::Overlap { wide: "shop".into(), other: "shop_eu".into() });
        assert_eq!(overlap(&["news=KEY", "shop=KEY", "shop_eu=KEY;shop_eu"]), found);
        assert_eq!(overlap(&["Shop_EU=KEY", "shops=KEY", "shop=KEY"]), found);
        for apart in [
            ["shop=KEY;shop;shop_chat", "shop_eu=KEY"],
            ["shop=KEY", "shop=KEY"],
            ["shop=KEY", "shops=KEY"],
            ["shop=KEY", "shop-eu=KEY"],
            ["shop=KEY;shop_*", "shop_eu=KEY"],
        ] {
            assert_eq!(overlap(&apart), None, "{apart:?}");
        }
        let shown = found.map(|found| found.to_string()).unwrap();
        assert!(shown.contains("\"shop_eu\": name the hubs of \"shop\" (`shop=KEY;HUB;HUB`"), "{shown}");
    }

    #[test]
    fn apps_are_bounded_in_number_wherever_their_keys_come_from_and_keys_of_one_app_count_once() {
        let keys: Vec<_> = (0..=APPS_MAX).map(|number| key(&format!("app{number}=KEY;hub{number}")).unwrap()).collect();
        let twice = keys[1..].iter().chain(&keys[1..]);
        assert_eq!(AppKey::check_all(twice, &[]), Ok(()));
        let error = AppKey::check_all(keys.iter(), &[]).unwrap_err();
        assert_eq!(error, AppKeySetError::TooMany(251));
        assert!(error.to_string().contains("takes 250: give the others a fleet"), "{error}");
    }

    #[test]
    fn a_key_of_the_fleet_is_no_apps_key() {
        let shop = key("shop=KEY;shop").unwrap();
        let error = AppKey::check_all(std::iter::once(&shop), std::slice::from_ref(&shop.key)).unwrap_err();
        assert_eq!(error, AppKeySetError::IsAccessKey("shop".into()));
        assert!(!error.to_string().contains(KEY), "{error}");
    }
}
