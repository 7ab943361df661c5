//! App keys: each key grants one app access to the hubs listed for it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use trunkline_protocol::key::AccessKey;

/// Maximum length of the name of an app, and of a hub.
const NAME_MAX_BYTES: usize = 256;

/// Wildcard at the end of a hub name; matches any suffix.
const STAR: char = '*';

/// Entry in a list of hubs that shares them with other apps carrying this entry.
const SHARED: &str = "shared=true";

/// Error of a text without a name or a key.
const NO_PAIR: &str = "is not `NAME=KEY` or `NAME=KEY;HUB;HUB`, such as `shop=…;shop;orders`";

/// Maximum number of apps with their own keys. A token is tried with all keys of its hub, a channel with all keys.
pub(crate) const APPS_MAX: usize = 250;

/// Error of app keys that conflict with each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppKeySetError {
    /// Two apps claim the same hub, and not both share it.
    #[error(
        "the keys of apps {one:?} ({hubs}) and {other:?} ({other_hubs}) open the same hubs: name hubs that differ \
         (`{one}=KEY;HUB;HUB`, or `hubs` in [app-keys.{one}]); where both apps are meant to serve and reach them, add \
         `shared=true` to both (`NAME=KEY;HUB;shared=true`, or `shared = true` in the tables)"
    )]
    Overlap {
        /// First app that claims the hub.
        one: String,
        /// Matching pattern of the first app.
        hubs: String,
        /// Second app that claims the hub.
        other: String,
        /// Matching pattern of the second app.
        other_hubs: String,
    },
    /// Two apps have the same key, so each could act as the other app.
    #[error(
        "apps {0:?} and {1:?} have the same key: give each its own key (`trunkline token key --app NAME` makes one)"
    )]
    SameKey(String, String),
    /// An app uses an access key of the fleet. The app could then act as a node and as an operator.
    #[error(
        "the key of app {0:?} is an access key of the fleet, which is valid for everything: give the app its own key \
         (`trunkline token key --app NAME` makes one)"
    )]
    IsAccessKey(String),
    /// There are more apps than a node accepts.
    #[error(
        "{0} apps have their own keys (--app-key, --app-key-file, [app-keys.NAME]), but a fleet allows at most \
         {APPS_MAX}: use a second fleet, or one name and key for apps of the same team"
    )]
    TooMany(usize),
}

/// Hubs that a key covers: names and name prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubScope {
    names: Arc<[Box<str>]>,
}

impl HubScope {
    /// Checks the names of hubs. Without any, the key covers the hub named like the app, and hub names that have the
    /// app as their application prefix, as Azure's SDK joins them. Fails if a name is invalid.
    pub(crate) fn new<'a>(app: &str, hubs: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let is_name = |hub: &str| {
            let plain = hub.strip_suffix(STAR).unwrap_or(hub);
            (1..=NAME_MAX_BYTES).contains(&hub.len()) && !plain.contains(STAR) && !hub.contains(char::is_control)
        };
        let mut names = Vec::new();
        for hub in hubs {
            if !is_name(hub) {
                let problem = "and a `*` at its end matches any suffix";
                return Err(format!("names a hub {hub:?}; a name has 1 to {NAME_MAX_BYTES} bytes, {problem}"));
            }
            names.push(hub.to_ascii_lowercase().into());
        }
        if names.is_empty() {
            let app = app.to_ascii_lowercase();
            names = vec![app.as_str().into(), format!("{app}_{STAR}").into()];
        }
        Ok(Self { names: names.into() })
    }

    /// Returns whether the scope contains a hub. Case-insensitive.
    #[must_use]
    pub(crate) fn holds(&self, hub: &str) -> bool {
        self.closeness(hub).is_some()
    }

    /// Length of the matching prefix, or `usize::MAX` for an exact match; `None` without a match.
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

/// Key of an app. Keys with the same app name are all valid, so keys can be rotated without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppKey {
    pub(crate) name: Arc<str>,
    pub(crate) key: AccessKey,
    pub(crate) hubs: HubScope,
    /// Whether other apps that also share their hubs may claim these hubs.
    pub(crate) is_shared: bool,
}

impl AppKey {
    pub(crate) fn new<'a>(name: &str, key: &str, hubs: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=NAME_MAX_BYTES).contains(&name.len()) || !name.bytes().all(is_plain) {
            let problem = "letters, digits, `-`, `_` and `.`";
            return Err(format!("has no name of an app before its `=`: a name has 1 to {NAME_MAX_BYTES} {problem}"));
        }
        let key = AccessKey::new(key).map_err(|problem| problem.to_string())?;
        Ok(Self { name: name.into(), key, hubs: HubScope::new(name, hubs)?, is_shared: false })
    }

    /// Checks that these keys can be used together with the fleet's keys: the number of apps is within its limit, no
    /// two holders have the same key, and apps claim the same hub only if both share it.
    ///
    /// # Errors
    /// Returns the first conflict.
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
        let mut holders = HashMap::new();
        for key in keys.clone() {
            let holder = holders.entry(key.key.expose()).or_insert(&key.name);
            if !holder.eq_ignore_ascii_case(&key.name) {
                return Err(AppKeySetError::SameKey(holder.to_string(), key.name.to_string()));
            }
        }
        ensure_apart(keys)
    }

    #[must_use]
    pub(crate) fn shared(self, is_shared: bool) -> Self {
        Self { is_shared, ..self }
    }

    /// Name of the app.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the key is for this hub.
    #[must_use]
    pub fn opens(&self, hub: &str) -> bool {
        self.hubs.holds(hub)
    }

    /// Secret that the app signs with.
    #[must_use]
    pub fn key(&self) -> &AccessKey {
        &self.key
    }
}

impl fmt::Display for AppKey {
    /// Writes every part except the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app key {}: hubs {}{}", self.name, self.hubs, if self.is_shared { ", shared" } else { "" })
    }
}

impl FromStr for AppKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or(NO_PAIR)?;
        let (key, list) = rest.split_once(';').map_or((rest, None), |(key, list)| (key, Some(list)));
        let key = Some(key.trim()).filter(|key| !key.is_empty()).ok_or(NO_PAIR)?;
        let items = list.unwrap_or_default().split(';').map(str::trim).filter(|item| !item.is_empty());
        let hubs = items.clone().filter(|item| *item != SHARED);
        if list.is_some() && items.clone().next().is_none() {
            // An omitted list would cover more hubs than intended.
            let remedy = "name the hubs, or remove the `;` to use the hubs of the app's own name";
            return Err(format!("has a `;` after the key but no hub: {remedy}"));
        }
        let is_like_shared =
            |hub: &&str| hub.split_once('=').is_some_and(|(name, _)| name.trim_end().eq_ignore_ascii_case("shared"));
        if let Some(entry) = hubs.clone().find(is_like_shared) {
            let remedy = "write `shared=true` to share them with other apps";
            return Err(format!("has {entry:?} in its list of hubs: {remedy}"));
        }
        Ok(Self::new(name.trim(), key, hubs)?.shared(items.clone().any(|item| item == SHARED)))
    }
}

/// Checks that apps share hubs only on purpose. Sorting patterns by their text before the wildcard makes common
/// prefixes adjacent.
fn ensure_apart<'a>(keys: impl Iterator<Item = &'a AppKey>) -> Result<(), AppKeySetError> {
    let patterns =
        keys.flat_map(|key| key.hubs.names.iter().map(move |name| (name.trim_end_matches(STAR), &**name, key)));
    let mut patterns: Vec<_> = patterns.collect();
    // Of two equal prefixes, the wildcard comes first.
    patterns.sort_by_key(|(beginning, name, _)| (*beginning, !name.ends_with(STAR)));
    for (at, (beginning, name, key)) in patterns.iter().enumerate() {
        let is_met =
            |other: &str| if name.ends_with(STAR) { other.starts_with(beginning) } else { other == *beginning };
        let following = patterns.get(at + 1..).unwrap_or_default().iter();
        let mut met = following.take_while(|(other, ..)| is_met(other));
        let is_foreign = |other: &AppKey| !other.name.eq_ignore_ascii_case(&key.name);
        if let Some((_, other_name, other)) =
            met.find(|(.., other)| is_foreign(other) && !(key.is_shared && other.is_shared))
        {
            return Err(AppKeySetError::Overlap {
                one: key.name.to_string(),
                hubs: (*name).to_owned(),
                other: other.name.to_string(),
                other_hubs: (*other_name).to_owned(),
            });
        }
    }
    Ok(())
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
            ("shop", "is not `NAME=KEY`"),
            ("shop=", "is not `NAME=KEY`"),
            ("=KEY", "has no name of an app"),
            ("a b=KEY", "has no name of an app"),
            ("shop=KEY;a*b", "a hub \"a*b\""),
            ("shop=KEY;", "but no hub"),
            ("shop=KEY; ;", "but no hub"),
            ("shop=short;orders", "access key has 5 bytes, but needs at least 16"),
            ("shop=KEY;shop;shared=yes", "\"shared=yes\" in its list of hubs: write `shared=true`"),
            ("shop=KEY;shop;Shared = true", "write `shared=true`"),
        ] {
            let problem = key(text).unwrap_err();
            assert!(problem.contains(words) && !problem.contains(KEY), "{text}: {problem}");
        }
        let shown = format!("{} {:?}", key("shop=KEY").unwrap(), key("shop=KEY").unwrap());
        assert!(shown.starts_with("app key shop: hubs shop, shop_* ") && !shown.contains(KEY), "{shown}");
    }

    fn overlap(texts: &[&str]) -> Option<AppKeySetError> {
        let keys = texts.iter().map(|text| key(&text.replace("KEY", &format!("KEY{}", text.len()))).unwrap());
        let keys: Vec<_> = keys.collect();
        AppKey::check_all(keys.iter(), &[]).err()
    }

    #[test]
    fn hubs_of_two_apps_are_refused_unless_both_share_them() {
        for (texts, both) in [
            (["shop=KEY", "shop_eu=KEY;shop_eu"], "\"shop\" (shop_*) and \"shop_eu\" (shop_eu)"),
            (["Shop_EU=KEY", "shop=KEY"], "\"shop\" (shop_*) and \"Shop_EU\" (shop_eu)"),
            (["shop=KEY", "eu=KEY;shop_eu"], "\"shop\" (shop_*) and \"eu\" (shop_eu)"),
            (["a=KEY;shop*", "bc=KEY;Shopping"], "\"a\" (shop*) and \"bc\" (shopping)"),
            (["a=KEY;x;orders", "bc=KEY;orders;y"], "\"a\" (orders) and \"bc\" (orders)"),
            (["a=KEY;*", "bc=KEY;orders"], "\"a\" (*) and \"bc\" (orders)"),
            (["a=KEY;sh*", "bc=KEY;shop*"], "\"a\" (sh*) and \"bc\" (shop*)"),
            (["a=KEY;shop;shared=true", "bc=KEY;shop"], "\"a\" (shop) and \"bc\" (shop)"),
        ] {
            let shown = overlap(&texts).map(|error| error.to_string()).unwrap_or_default();
            let named = shown.contains(both) || both.split(" and ").all(|one| shown.contains(one));
            assert!(named && shown.contains("shared=true") && !shown.contains(KEY), "{texts:?}: {shown}");
        }
        for apart in [
            ["shop=KEY;shop;shop_chat", "shop_eu=KEY"],
            ["shop=KEY", "shop=KEY22"],
            ["shop=KEY", "shops=KEY"],
            ["shop=KEY", "shop-eu=KEY"],
            ["shop=KEY", "shop_eu=KEY;orders"],
            ["a=KEY;shop*;shared=true", "bcd=KEY;shop;shared=true"],
        ] {
            assert_eq!(overlap(&apart), None, "{apart:?}");
        }
    }

    #[test]
    fn one_key_under_two_names_is_refused() {
        let keys = [key("shop=KEY").unwrap(), key("news=KEY").unwrap()];
        let error = AppKey::check_all(keys.iter(), &[]).unwrap_err();
        assert_eq!(error, AppKeySetError::SameKey("shop".into(), "news".into()));
        assert!(!error.to_string().contains(KEY), "{error}");
    }

    #[test]
    fn apps_are_bounded_in_number_wherever_their_keys_come_from_and_keys_of_one_app_count_once() {
        let keys: Vec<_> =
            (0..=APPS_MAX).map(|number| key(&format!("app{number}=KEY{number};hub{number}")).unwrap()).collect();
        let twice = keys[1..].iter().chain(&keys[1..]);
        assert_eq!(AppKey::check_all(twice, &[]), Ok(()));
        let error = AppKey::check_all(keys.iter(), &[]).unwrap_err();
        assert_eq!(error, AppKeySetError::TooMany(251));
        assert!(error.to_string().contains("allows at most 250: use a second fleet"), "{error}");
    }

    #[test]
    fn a_key_of_the_fleet_is_no_apps_key() {
        let shop = key("shop=KEY;shop").unwrap();
        let error = AppKey::check_all(std::iter::once(&shop), std::slice::from_ref(&shop.key)).unwrap_err();
        assert_eq!(error, AppKeySetError::IsAccessKey("shop".into()));
        assert!(!error.to_string().contains(KEY), "{error}");
    }
}
