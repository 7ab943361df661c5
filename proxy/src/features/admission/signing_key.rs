//! Secrets that sign tokens for this node: keys of the fleet, valid for every hub, and keys of apps, valid for their
//! own hubs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use jsonwebtoken::DecodingKey;
use tokio::sync::watch;
use trunkline_channel::HelloTable;
use trunkline_protocol::key::{AccessKey, AccessKeys, KeyTag, PeerKind};

use crate::ground::auth::{AppKey, AppKeySetError, HubScope, Signer, TokenSigner, VerifyingKey};

/// Signing secret, in the forms needed for verification.
pub(crate) struct SigningKey {
    pub key: AccessKey,
    /// Name of the app; `None` for a key of the fleet.
    pub app: Option<Arc<str>>,
    /// Hubs that the key covers; `None` for all.
    hubs: Option<HubScope>,
    /// Verifies tokens of users with HS256 only.
    pub of_users: VerifyingKey,
    /// Verifies tokens of dial-in and of the data plane.
    pub of_service: DecodingKey,
}

impl SigningKey {
    fn new(key: &AccessKey, app: Option<&AppKey>) -> Option<Self> {
        let of_users = VerifyingKey::from_secret(key.expose()).ok()?;
        let of_service = DecodingKey::from_secret(key.expose().as_bytes());
        let (name, hubs) = app.map(|app| (app.name.clone(), app.hubs.clone())).unzip();
        Some(Self { key: key.clone(), app: name, hubs, of_users, of_service })
    }

    pub(super) fn as_signer(&self) -> TokenSigner {
        TokenSigner { key: self.key.clone(), signer: self.app.clone().map_or(Signer::Fleet, Signer::App) }
    }

    /// Returns whether the key covers a hub. Without a name, the key must cover all hubs.
    pub(crate) fn is_for(&self, hub: Option<&str>) -> bool {
        self.hubs.as_ref().is_none_or(|hubs| hub.is_some_and(|hub| hubs.holds(hub)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(secret, {:?})", self.hubs)
    }
}

#[derive(Debug, Clone)]
struct KeySources {
    fleet: AccessKeys,
    /// App keys from flags, and from files named by flags.
    of_flags: Vec<AppKey>,
    /// App keys from the configuration file.
    of_rules: Vec<AppKey>,
}

/// Current keys. Reading never blocks; a reload of the files replaces the keys.
#[derive(Debug)]
pub(crate) struct SigningKeys {
    in_force: ArcSwap<Vec<SigningKey>>,
    /// All keys by holder, for channels of app servers that dial in.
    of_channels: ArcSwap<ChannelKeyTable>,
    changed: watch::Sender<()>,
    sources: Mutex<KeySources>,
}

impl SigningKeys {
    /// Creates the table with the fleet's keys and the keys from flags. The caller has checked them.
    pub(crate) fn new(fleet: &AccessKeys, of_flags: &[AppKey]) -> Arc<Self> {
        let sources = KeySources { fleet: fleet.clone(), of_flags: of_flags.to_vec(), of_rules: Vec::new() };
        let (in_force, of_channels) = (sources.keys(), sources.of_channels(&[]));
        Arc::new(Self {
            in_force: ArcSwap::from_pointee(in_force),
            of_channels: ArcSwap::from_pointee(of_channels),
            changed: watch::Sender::new(()),
            sources: Mutex::new(sources),
        })
    }

    /// Replaces the app keys from the configuration file. Keeps the old ones if the new ones conflict.
    pub(crate) fn set_rules(&self, keys: &[AppKey]) -> Result<(), AppKeySetError> {
        self.change(|sources| sources.of_rules = keys.to_vec())
    }

    /// Replaces the app keys from flags and their files. Keeps the old ones if the new ones conflict.
    pub(crate) fn set_flags(&self, keys: &[AppKey]) -> Result<(), AppKeySetError> {
        self.change(|sources| sources.of_flags = keys.to_vec())
    }

    /// Checks that keys from flags would not conflict with those of the configuration file and these fleet keys.
    pub(crate) fn check_flags(&self, keys: &[AppKey], fleet: &[AccessKey]) -> Result<(), AppKeySetError> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        AppKey::check_all(keys.iter().chain(&sources.of_rules), fleet)
    }

    /// Current keys, starting with the fleet's keys.
    #[must_use]
    pub(crate) fn load(&self) -> Guard<Arc<Vec<SigningKey>>> {
        self.in_force.load()
    }

    pub(crate) fn has_apps(&self) -> bool {
        self.load().last().is_some_and(|key| key.app.is_some())
    }

    /// Owner of a hub: the app with the most specific match.
    pub(crate) fn owner_of(&self, hub: &str) -> Signer {
        let keys = self.load();
        let of_apps = keys.iter().filter_map(|key| Some((key.hubs.as_ref()?.closeness(hub)?, key)));
        // On a tie, the first key wins.
        let closest = of_apps.reduce(|one, other| if other.0 > one.0 { other } else { one });
        closest.map_or(Signer::Fleet, |(_, key)| key.as_signer().signer)
    }

    pub(crate) fn of_channels(&self) -> Arc<ChannelKeyTable> {
        self.of_channels.load_full()
    }

    /// Waits until an app's key that signed a token no longer covers the hub. Never returns for a key of the fleet,
    /// whose connections stay open.
    pub(crate) async fn taken_away(&self, from: &TokenSigner, hub: &str) {
        if !from.is_of_app() {
            return std::future::pending().await;
        }
        let mut changes = self.changed.subscribe();
        let is_good = || self.load().iter().any(|key| key.key == from.key && key.is_for(Some(hub)));
        while is_good() && changes.changed().await.is_ok() {}
    }

    fn change(&self, change: impl FnOnce(&mut KeySources)) -> Result<(), AppKeySetError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = sources.clone();
        change(&mut changed);
        let fleet: Vec<_> = changed.fleet.iter().collect();
        AppKey::check_all(changed.of_flags.iter().chain(&changed.of_rules), &fleet)?;
        *sources = changed;
        self.in_force.store(Arc::new(sources.keys()));
        self.of_channels.store(Arc::new(sources.of_channels(self.of_channels.load().holders())));
        self.changed.send_replace(());
        Ok(())
    }
}

impl KeySources {
    /// Groups the keys by holder and keeps the holders' previous hellos.
    fn of_channels(&self, before: &[ChannelKeys]) -> ChannelKeyTable {
        let mut by_app: BTreeMap<&Arc<str>, Vec<AccessKey>> = BTreeMap::new();
        for app in self.of_flags.iter().chain(&self.of_rules) {
            by_app.entry(&app.name).or_default().push(app.key.clone());
        }
        let of_apps = by_app.into_iter().filter_map(|(name, keys)| {
            Some(ChannelKeys::new(Signer::App(name.clone()), AccessKeys::new(keys).ok()?, before))
        });
        let of_fleet = ChannelKeys::new(Signer::Fleet, self.fleet.clone(), before);
        ChannelKeyTable::new(std::iter::once(of_fleet).chain(of_apps).collect())
    }

    fn keys(&self) -> Vec<SigningKey> {
        let fleet = self.fleet.iter().filter_map(|key| SigningKey::new(&key, None));
        let apps = self.of_flags.iter().chain(&self.of_rules);
        fleet.chain(apps.filter_map(|app| SigningKey::new(&app.key, Some(app)))).collect()
    }
}

/// Keys of one holder, with a separate table of opened hellos: an app can't evict the hellos of others.
#[derive(Debug, Clone)]
pub(crate) struct ChannelKeys {
    pub signer: Signer,
    pub keys: AccessKeys,
    pub hellos: HelloTable,
}

impl ChannelKeys {
    /// Creates the keys of a holder, keeping its opened hellos: they can't be replayed after a reload of the keys.
    pub(super) fn new(signer: Signer, keys: AccessKeys, before: &[Self]) -> Self {
        let known = before.iter().find(|known| known.signer == signer);
        Self { keys, hellos: known.map(|known| known.hellos.clone()).unwrap_or_default(), signer }
    }
}

/// Keys of all holders. Lookup by tag takes constant time for any number of keys.
#[derive(Debug, Default)]
pub(crate) struct ChannelKeyTable {
    holders: Vec<ChannelKeys>,
    by_tag: HashMap<KeyTag, usize>,
}

impl ChannelKeyTable {
    pub(super) fn new(holders: Vec<ChannelKeys>) -> Self {
        let tags = |keys: &AccessKeys| keys.channel_secrets(PeerKind::DialIn).map(|secret| secret.tag);
        let by_tag = holders.iter().enumerate().flat_map(|(at, holder)| tags(&holder.keys).map(move |tag| (tag, at)));
        Self { by_tag: by_tag.collect(), holders }
    }

    pub(super) fn holders(&self) -> &[ChannelKeys] {
        &self.holders
    }

    /// Keys of the holder of the key with this tag.
    pub(crate) fn tagged(&self, tag: KeyTag) -> Option<&ChannelKeys> {
        self.holders.get(*self.by_tag.get(&tag)?)
    }
}
