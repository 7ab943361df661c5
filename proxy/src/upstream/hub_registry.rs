//! Registry of the hubs that this node serves, learnt from the manifests of app servers.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Body;
use http::{Request, Response};
use tokio::time::Instant;
use trunkline_protocol::limits::STATEFUL_RECONNECT_BUFFER_BYTES;
use trunkline_protocol::manifest::HubManifest;

use super::link_waiter::LinkWaiters;
use super::number::{AppServerId, HubIndex};
use super::{GroupTerms, HomeLink, MemoryLink, Pool, ServerGroup};
use crate::metrics::RuleCounters;
use crate::net::address::Address;
use crate::routing::{DEFAULT_GROUP, HubRules, Ruleset};

/// An app server instance.
#[derive(Debug)]
pub(crate) struct AppServer {
    pub id: AppServerId,
    /// Its random instance id.
    pub instance: String,
    /// Its name, for people.
    pub name: String,
    pub target: AppTarget,
    pub group: Arc<ServerGroup>,
}

impl AppServer {
    /// Weight of its turns among those of its group.
    #[must_use]
    pub(crate) fn weight(&self) -> u32 {
        match &self.target {
            AppTarget::Network(address) => self.group.weight_of(address),
            AppTarget::Memory(_) | AppTarget::DialsIn => 1,
        }
    }
}

/// Where an app server is: behind an address, or in this process.
#[derive(Debug, Clone)]
pub(crate) enum AppTarget {
    Network(Address),
    Memory(Arc<dyn MemoryDialler>),
    /// It dials in, and nobody dials it.
    DialsIn,
}

/// Connector to the app that this node is embedded in.
pub trait MemoryDialler: std::fmt::Debug + Send + Sync {
    /// Gives the app the far end of a link, with the values that headers have over the network.
    fn dial(&self, hub: &str, node: &str, boot: &str, slot: usize, link: MemoryLink);

    /// Has the app answer a request to one of the paths that it serves for proxies.
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

    /// Says for people where the app is.
    fn place(&self) -> String {
        "this process".into()
    }

    /// Whether the far ends of its links report on messages that a live trace follows.
    fn knows_traces(&self) -> bool {
        false
    }
}

impl std::fmt::Display for AppTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Memory(dialler) => f.write_str(&dialler.place()),
            Self::DialsIn => f.write_str("dials in"),
        }
    }
}

/// A hub: its settings, and the app servers that serve it.
#[derive(Debug)]
pub(crate) struct Hub {
    index: HubIndex,
    name: String,
    origin: HubOrigin,
    /// Name in the fleet: hubs of one name and different origins are two.
    key: String,
    learnt_at: Instant,
    settings: ArcSwap<HubManifest>,
    /// Rules of the operator for its messages; `None` without any.
    rules: ArcSwapOption<HubRules>,
    /// Whether an app server of the default group has named it.
    is_of_default: AtomicBool,
    /// Whether its rules have to see single messages: what a reader asks at each read.
    reads_messages: AtomicBool,
    pools: ArcSwap<Vec<Arc<Pool>>>,
    next: AtomicUsize,
    /// Authorizations take turns separately: each client brings one and then needs a home, so of two app servers one
    /// would get them all.
    next_authorizing: AtomicUsize,
    waiters: LinkWaiters,
    /// Held while a pool of an app server that dials in begins or ends.
    changing: Mutex<()>,
}

/// How a hub comes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubOrigin {
    /// App servers that we dial name it, with its settings and its path.
    Manifest,
    /// App servers that dial in name it; its clients come by the path of the door.
    Door,
    /// The operator names it, with a webhook in place of app servers. Else it is a hub of the door, whose clients may come
    /// by a path of its own, too.
    Webhook,
}

/// Maximum number of hubs that app servers and clients may name at the door.
const DOOR_HUBS_MAX: usize = 1000;

/// Registry of all hubs of a node.
#[derive(Debug, Default)]
pub(crate) struct HubRegistry {
    all: ArcSwap<Vec<Arc<Hub>>>,
    rules: ArcSwap<Ruleset>,
    /// Counters of rules in force and former ones.
    rule_counters: RuleCounters,
    /// Groups of app servers that were ever named.
    groups: ArcSwap<Vec<Arc<ServerGroup>>>,
    // Held while the lists or the rules change.
    changing: Mutex<()>,
    /// Instance ids of all app servers that were ever met, in the order of their numbers.
    app_servers: Mutex<Vec<Arc<str>>>,
}

impl Hub {
    #[must_use]
    pub(crate) fn index(&self) -> HubIndex {
        self.index
    }

    /// Its name, as links, logs and metrics have it.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its name among all hubs of the fleet, whatever their origin.
    #[must_use]
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is one of those that the door names: its app servers dial in, or it has a webhook in place of them.
    #[must_use]
    pub(crate) fn is_of_door(&self) -> bool {
        matches!(self.origin, HubOrigin::Door | HubOrigin::Webhook)
    }

    /// Whether a webhook serves it.
    #[must_use]
    pub(crate) fn has_webhook(&self) -> bool {
        self.origin == HubOrigin::Webhook
    }

    /// Its settings, from the manifest that was read last.
    #[must_use]
    pub(crate) fn settings(&self) -> Arc<HubManifest> {
        self.settings.load_full()
    }

    /// Rules of the operator for the messages of its connections.
    #[must_use]
    pub(crate) fn rules(&self) -> Option<Arc<HubRules>> {
        self.rules.load_full()
    }

    /// Rules of the operator, if they have to see each message of its connections.
    #[must_use]
    pub(crate) fn message_rules(&self) -> Option<Arc<HubRules>> {
        if self.reads_messages.load(Ordering::Relaxed) { self.rules() } else { None }
    }

    fn set_rules(&self, rules: Option<Arc<HubRules>>) {
        let reads_messages = rules.as_ref().is_some_and(|rules| rules.read_messages());
        self.rules.store(rules);
        self.reads_messages.store(reads_messages, Ordering::Relaxed);
    }

    /// Path by which rules name it: its own, or at the door its name behind a slash.
    #[must_use]
    pub(crate) fn rule_path(&self) -> String {
        match self.origin {
            HubOrigin::Manifest => self.settings.load().path.clone(),
            HubOrigin::Door | HubOrigin::Webhook => format!("/{}", self.name),
        }
    }

    /// Learns from an app server that has dialled in whether clients may come back to their connections.
    pub(crate) fn learn_reconnects(&self, are_allowed: bool) {
        let bytes = are_allowed.then_some(STATEFUL_RECONNECT_BUFFER_BYTES);
        let known = self.settings.load();
        if known.stateful_reconnect_buffer_bytes != bytes {
            let learnt = HubManifest { stateful_reconnect_buffer_bytes: bytes, ..HubManifest::clone(&known) };
            self.settings.store(Arc::new(learnt));
        }
    }

    /// Its pools, one per app server.
    #[must_use]
    pub(crate) fn pools(&self) -> Arc<Vec<Arc<Pool>>> {
        self.pools.load_full()
    }

    /// Whether any app server that takes clients can be reached, and is not about to stop.
    #[must_use]
    pub(crate) fn is_served(&self) -> bool {
        self.pools.load().iter().any(|pool| !pool.app().group.is_mirror() && pool.is_up())
    }

    /// Whether somebody has to serve it: an app server of the default group has named it, or one takes clients of it now.
    /// What only a mirror names need not be served.
    #[must_use]
    pub(crate) fn is_expected(&self) -> bool {
        let is_for_clients = |pool: &Arc<Pool>| !pool.app().group.is_mirror();
        self.is_of_default.load(Ordering::Relaxed) || self.pools.load().iter().any(is_for_clients)
    }

    /// Whether any app server of a group can be reached that is not about to stop.
    #[must_use]
    pub(crate) fn is_served_by(&self, group: &str) -> bool {
        self.pools_of(group).iter().any(|pool| pool.is_up())
    }

    /// Its pools of the app servers of a group.
    fn pools_of(&self, group: &str) -> Vec<Arc<Pool>> {
        self.pools.load().iter().filter(|pool| **pool.app().group.name() == *group).cloned().collect()
    }

    /// Waits until an app server of a group can be reached, if one could be within the window: its link is about to
    /// return. `limit` bounds the time, and `is_over` ends it.
    pub(crate) async fn wait_until_served(
        &self,
        group: &str,
        window: Duration,
        limit: Duration,
        is_over: impl Fn() -> bool,
    ) {
        let last = Instant::now() + limit;
        let until = || {
            if self.is_served_by(group) || is_over() {
                return None;
            }
            let pools = self.pools_of(group);
            // Its app servers may be about to dial in for the first time, or its webhook about to be linked.
            let begun_at = (self.is_of_door() && pools.is_empty()) || self.has_webhook();
            let begun_at = begun_at.then_some(self.learnt_at);
            let lost_at = pools.iter().filter_map(|pool| pool.lost_at()).max().max(begun_at);
            lost_at.map(|lost_at| last.min(lost_at + window)).filter(|until| *until > Instant::now())
        };
        self.waiters.wait(until).await;
    }

    /// Waits until one app server can be reached, for at most this long.
    pub(crate) async fn wait_until_reached(&self, app: AppServerId, limit: Duration, is_over: impl Fn() -> bool) {
        let last = Instant::now() + limit;
        let is_reached = || self.pool_of(app).is_some_and(|pool| pool.open() > 0);
        let until = || (!is_reached() && !is_over()).then_some(last).filter(|until| *until > Instant::now());
        self.waiters.wait(until).await;
    }

    /// Wakes those that wait until the hub is served, to look again.
    pub(crate) fn wake_waiters(&self) {
        self.waiters.wake();
    }

    /// The link for a new client connection of a group: its app servers take turns by their weights, then the links of a
    /// pool do.
    #[must_use]
    pub(crate) fn choose_home_in(&self, group: &str) -> Option<HomeLink> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        in_turn(self.pools_of(group), turn).iter().find_map(|pool| pool.choose_home())
    }

    /// Another home for a client connection of a group that has lost its home at this app server: there, if that is of
    /// the group and still has links.
    #[must_use]
    pub(crate) fn choose_home_near(&self, app: AppServerId, group: &str) -> Option<HomeLink> {
        let own = self.pool_of(app).filter(|pool| **pool.app().group.name() == *group);
        own.and_then(|pool| pool.choose_home()).or_else(|| self.choose_home_in(group))
    }

    /// The group of an app server; the default one for what is unknown.
    #[must_use]
    pub(crate) fn group_of(&self, app: AppServerId) -> Arc<str> {
        self.pool_of(app).map_or_else(|| DEFAULT_GROUP.into(), |pool| pool.app().group.name().clone())
    }

    /// The link for a client connection that has to be at one app server.
    #[must_use]
    pub(crate) fn choose_home_at(&self, app: AppServerId) -> Option<HomeLink> {
        self.pool_of(app)?.choose_home()
    }

    /// The pool of an app server.
    #[must_use]
    pub(crate) fn pool_of(&self, app: AppServerId) -> Option<Arc<Pool>> {
        self.pools.load().iter().find(|pool| pool.app().id == app).cloned()
    }

    /// The linked app servers of a group in the order in which to try them for an authorization: they take turns.
    #[must_use]
    pub(crate) fn apps_in_turn(&self, group: &str) -> Vec<Arc<AppServer>> {
        let mut up = self.pools_of(group);
        up.retain(|pool| pool.is_up());
        let turn = self.next_authorizing.fetch_add(1, Ordering::Relaxed);
        in_turn(up, turn).iter().map(|pool| pool.app().clone()).collect()
    }

    /// The pool of an app server that dials in; it begins with its first link.
    pub(crate) fn pool_or_add(&self, app: AppServerId, begin: impl FnOnce() -> Pool) -> Arc<Pool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool_of(app).unwrap_or_else(|| {
            let pool = Arc::new(begin());
            self.add_pool(pool.clone());
            pool
        })
    }

    /// Removes the pool of an app server that has no link any more; `false` if it has one again, or is removed already.
    pub(crate) fn remove_empty_pool(&self, pool: &Arc<Pool>) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = self.pools.load().iter().any(|known| Arc::ptr_eq(known, pool));
        if !is_known || !pool.is_empty() {
            return false;
        }
        self.remove_pool(pool);
        true
    }

    /// Adds the pool of another app server.
    pub(crate) fn add_pool(&self, pool: Arc<Pool>) {
        self.pools.rcu(|pools| pools.iter().chain([&pool]).cloned().collect::<Vec<_>>());
    }

    /// Removes a retired pool.
    pub(crate) fn remove_pool(&self, pool: &Arc<Pool>) {
        self.pools.rcu(|pools| pools.iter().filter(|known| !Arc::ptr_eq(known, pool)).cloned().collect::<Vec<_>>());
        self.wake_waiters();
    }
}

impl HubRegistry {
    /// Whether the app server of a home keeps what its lost clients had.
    #[must_use]
    pub(crate) fn restores(&self, home: &HomeLink) -> bool {
        let pool = self.all.load().get(home.hub().get()).and_then(|hub| hub.pool_of(home.app()));
        pool.is_some_and(|pool| pool.restores())
    }

    /// Rules of the operator that are in force.
    #[must_use]
    pub(crate) fn rules(&self) -> Arc<Ruleset> {
        self.rules.load_full()
    }

    /// Counters of the rules, by label.
    #[must_use]
    pub(crate) fn rule_counters(&self) -> &RuleCounters {
        &self.rule_counters
    }

    /// Puts other rules in force, for all hubs and those that are learnt later.
    pub(crate) fn apply_rules(&self, rules: &Ruleset) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = Arc::new(rules.counted(&self.rule_counters));
        for hub in self.all.load().iter() {
            hub.set_rules(rules.of_hub(&hub.rule_path()));
        }
        self.rules.store(rules);
    }

    /// Whether any group beside the default one was ever named.
    #[must_use]
    pub(crate) fn has_groups(&self) -> bool {
        self.groups.load().iter().any(|group| !group.is_default())
    }

    /// The group of this name; `None` for the default one.
    #[must_use]
    pub(crate) fn group(&self, name: &str) -> Option<Arc<ServerGroup>> {
        self.groups.load().iter().find(|group| **group.name() == *name && !group.is_default()).cloned()
    }

    /// Whether there is a pool to any app server of a group.
    #[must_use]
    pub(crate) fn is_linked(&self, group: &str) -> bool {
        self.all.load().iter().any(|hub| !hub.pools_of(group).is_empty())
    }

    /// Name of another group that an app server instance is linked in.
    #[must_use]
    pub(crate) fn other_group_of(&self, instance: &str, group: &ServerGroup) -> Option<Arc<str>> {
        let all = self.all.load();
        let mut pools = all.iter().flat_map(|hub| hub.pools().to_vec());
        let other = pools.find(|pool| pool.app().instance == instance && pool.app().group.name() != group.name());
        other.map(|pool| pool.app().group.name().clone())
    }

    /// The default group, which each node has.
    #[must_use]
    pub(crate) fn default_group(&self) -> Arc<ServerGroup> {
        self.groups.load().iter().find(|group| group.is_default()).cloned().unwrap_or_default()
    }

    /// Adds a group, or gives one that is known other terms.
    pub(crate) fn set_group(&self, name: &Arc<str>, terms: GroupTerms, is_mirror: bool) -> Arc<ServerGroup> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.groups.load().iter().find(|group| group.name() == name).cloned();
        let group = known.unwrap_or_else(|| {
            let group = Arc::new(ServerGroup::new(name.clone(), GroupTerms::default()));
            self.groups.rcu(|groups| groups.iter().chain([&group]).cloned().collect::<Vec<_>>());
            group
        });
        group.change(terms, is_mirror);
        group
    }

    /// All hubs, oldest first.
    #[must_use]
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Hub>>> {
        self.all.load_full()
    }

    /// Finds the hub of a path, without regard to case.
    #[must_use]
    pub(crate) fn find(&self, path: &str) -> Option<Arc<Hub>> {
        let path = without_slash(path);
        let all = self.all.load();
        let mut with_paths = all.iter().filter(|hub| !hub.is_of_door() || hub.has_webhook());
        with_paths.find(|hub| without_slash(&hub.settings.load().path).eq_ignore_ascii_case(path)).cloned()
    }

    /// Whether all hubs of manifests are served, and there are some if there `must_be`. Those of the door come and go
    /// as their app servers like.
    #[must_use]
    pub(crate) fn are_served(&self, must_be: bool) -> bool {
        let all = self.all.load();
        let mut manifests = all.iter().filter(|hub| !hub.is_of_door() && hub.is_expected()).peekable();
        (!must_be || manifests.peek().is_some()) && manifests.all(|hub| hub.is_served())
    }

    /// Finds a hub by its name in the fleet.
    #[must_use]
    pub(crate) fn keyed(&self, key: &str) -> Option<Arc<Hub>> {
        self.all.load().iter().find(|hub| hub.key == key).cloned()
    }

    /// Finds a hub by the name that people give it; of two the one of a manifest.
    #[must_use]
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Hub>> {
        self.keyed(name).or_else(|| self.keyed(&HubOrigin::Door.key(name)))
    }

    /// The remote app servers of a group to which any link is open, each once; draining ones only while there are no
    /// others.
    #[must_use]
    pub(crate) fn linked_app_servers(&self, group: &str) -> Vec<Arc<AppServer>> {
        let (mut staying, mut all): (Vec<Arc<AppServer>>, Vec<Arc<AppServer>>) = Default::default();
        for hub in self.all.load().iter() {
            for pool in hub.pools_of(group).iter().filter(|pool| pool.open() > 0) {
                let app = pool.app();
                let is_new = |known: &[Arc<AppServer>]| known.iter().all(|known| known.id != app.id);
                if !matches!(app.target, AppTarget::Network(_)) {
                    continue;
                }
                if is_new(&all) {
                    all.push(app.clone());
                }
                if !pool.is_draining() && is_new(&staying) {
                    staying.push(app.clone());
                }
            }
        }
        if staying.is_empty() { all } else { staying }
    }

    /// Whether no manifest has been read yet.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.all.load().iter().all(|hub| hub.is_of_door())
    }

    /// Learns a hub of the manifest of an app server in a group, or newer settings of it. Those of the default group
    /// count before those of others, which may be another version.
    pub(crate) fn learn(&self, settings: HubManifest, group: &ServerGroup) -> Arc<Hub> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let hub = match self.keyed(&settings.name) {
            Some(hub) => {
                if group.is_default() || (!group.is_mirror() && !hub.is_of_default.load(Ordering::Relaxed)) {
                    hub.settings.store(Arc::new(settings));
                    hub.set_rules(self.rules.load().of_hub(&hub.rule_path()));
                }
                hub
            }
            None => self.insert(HubOrigin::Manifest, settings),
        };
        hub.is_of_default.fetch_or(group.is_default(), Ordering::Relaxed);
        hub
    }

    /// Learns a hub that somebody with an access key has named at the door; `None` when there are too many.
    pub(crate) fn learn_at_door(&self, settings: HubManifest) -> Option<Arc<Hub>> {
        self.learn_as(HubOrigin::Door, settings)
    }

    /// Learns a hub that a webhook serves; `None` when there are too many.
    pub(crate) fn learn_webhook(&self, settings: HubManifest) -> Option<Arc<Hub>> {
        self.learn_as(HubOrigin::Webhook, settings)
    }

    fn learn_as(&self, origin: HubOrigin, settings: HubManifest) -> Option<Arc<Hub>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.keyed(&origin.key(&settings.name));
        let count = self.all.load().iter().filter(|hub| hub.is_of_door()).count();
        known.or_else(|| (count < DOOR_HUBS_MAX).then(|| self.insert(origin, settings)))
    }

    fn insert(&self, origin: HubOrigin, settings: HubManifest) -> Arc<Hub> {
        let all = self.all.load();
        let hub = Arc::new(Hub {
            index: HubIndex(u32::try_from(all.len()).unwrap_or(u32::MAX)),
            key: origin.key(&settings.name),
            name: settings.name.clone(),
            origin,
            learnt_at: Instant::now(),
            settings: ArcSwap::from_pointee(settings),
            rules: ArcSwapOption::empty(),
            is_of_default: AtomicBool::new(false),
            reads_messages: AtomicBool::new(false),
            pools: ArcSwap::default(),
            next: AtomicUsize::new(0),
            next_authorizing: AtomicUsize::new(0),
            waiters: LinkWaiters::default(),
            changing: Mutex::new(()),
        });
        hub.set_rules(self.rules.load().of_hub(&hub.rule_path()));
        self.all.store(Arc::new(all.iter().chain([&hub]).cloned().collect()));
        hub
    }

    /// The number of an app server instance; every hub and pool sees one number.
    #[must_use]
    pub(crate) fn number(&self, instance: &str) -> AppServerId {
        let mut known = self.app_servers.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.iter().position(|known| **known == *instance).unwrap_or_else(|| {
            known.push(instance.into());
            known.len() - 1
        });
        AppServerId(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The instance id behind a number.
    #[must_use]
    pub(crate) fn instance(&self, app: AppServerId) -> Arc<str> {
        let known = self.app_servers.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(app.0 as usize).cloned().unwrap_or_default()
    }
}

impl HubOrigin {
    /// Name of a hub in the fleet. Names of manifests hold no question mark.
    #[must_use]
    pub(crate) fn key(self, name: &str) -> String {
        match self {
            Self::Manifest => name.to_owned(),
            Self::Door | Self::Webhook => format!("?hub={name}"),
        }
    }
}

/// Pools in the order in which to try them at a turn: of each round of turns a pool has as many as its weight.
fn in_turn(mut pools: Vec<Arc<Pool>>, turn: usize) -> Vec<Arc<Pool>> {
    let weights = || pools.iter().map(|pool| pool.app().weight() as usize);
    let Some(mut place) = turn.checked_rem(weights().sum()) else { return pools };
    let first = weights().position(|weight| match place.checked_sub(weight) {
        Some(rest) => {
            place = rest;
            false
        }
        None => true,
    });
    pools.rotate_left(first.unwrap_or_default());
    pools
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::LinkHandle;

    fn hub_with(apps: u32) -> Arc<Hub> {
        hub_of(&HubRegistry::default(), "chat", apps)
    }

    fn hub_of(hubs: &HubRegistry, name: &str, apps: u32) -> Arc<Hub> {
        let hub = hubs.learn(HubManifest::new(name, &format!("/{name}")), &ServerGroup::default());
        for app in 0..apps {
            let server = AppServer {
                id: AppServerId(app),
                instance: app.to_string(),
                name: String::new(),
                target: AppTarget::Network("http://app".parse().unwrap()),
                group: Arc::default(),
            };
            let pool = Arc::new(Pool::new(hub.clone(), Arc::new(server), 2, Arc::default()));
            for slot in 0..2 {
                pool.opened(slot, Arc::new(LinkHandle::opened(hub.index(), AppServerId(app))));
            }
            hub.add_pool(pool);
        }
        hub
    }

    #[test]
    fn new_connections_alternate_between_app_servers_and_then_between_links() {
        let hub = hub_with(2);
        let homes: Vec<_> = (0..4).map(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap()).collect();
        let apps: Vec<_> = homes.iter().map(|home| home.app().0).collect();
        assert_eq!(apps, [0, 1, 0, 1]);
        assert_ne!(homes[0].id(), homes[2].id());
    }

    #[test]
    fn a_connection_without_a_home_stays_at_its_app_server_if_that_has_another_link() {
        let hub = hub_with(2);
        assert!((0..3).all(|_| hub.choose_home_near(AppServerId(1), DEFAULT_GROUP).unwrap().app().0 == 1));
        assert!(hub.pools()[1].begin_drain());
        assert!((0..3).all(|_| hub.choose_home_near(AppServerId(1), DEFAULT_GROUP).unwrap().app().0 == 0));
        hub.pools()[0].lost(0);
        hub.pools()[0].lost(1);
        assert!(hub.choose_home_near(AppServerId(1), DEFAULT_GROUP).is_none() && !hub.is_served());
    }

    #[test]
    fn an_instance_has_one_number_wherever_it_is_met() {
        let hubs = HubRegistry::default();
        let (a, b) = (hubs.number("a"), hubs.number("b"));
        assert!(a != b && hubs.number("a") == a);
        assert_eq!((&*hubs.instance(b), &*hubs.instance(AppServerId::NONE)), ("b", ""));
    }

    #[test]
    fn an_app_server_without_open_links_is_skipped() {
        let hub = hub_with(2);
        hub.pools()[0].lost(0);
        hub.pools()[0].lost(1);
        assert!((0..3).all(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap().app().0 == 1));
    }

    #[test]
    fn authorizations_and_homes_alternate_separately() {
        let hub = hub_with(2);
        let clients = (0..4)
            .map(|_| (hub.apps_in_turn(DEFAULT_GROUP)[0].id.0, hub.choose_home_in(DEFAULT_GROUP).unwrap().app().0));
        assert_eq!(clients.collect::<Vec<_>>(), [(0, 0), (1, 1), (0, 0), (1, 1)]);
        let order = |hub: &Hub| hub.apps_in_turn(DEFAULT_GROUP).iter().map(|app| app.id.0).collect::<Vec<_>>();
        assert_eq!([order(&hub), order(&hub)], [[0, 1], [1, 0]], "the others are there for when one can't be reached");
        assert!(hub.pools()[0].begin_drain());
        assert_eq!(order(&hub), [1]);
        hub.pools()[1].lost(0);
        hub.pools()[1].lost(1);
        assert!(order(&hub).is_empty());
    }

    #[test]
    fn an_app_server_is_linked_while_any_hub_has_a_link_to_it() {
        let hubs = HubRegistry::default();
        let (chat, status) = (hub_of(&hubs, "chat", 2), hub_of(&hubs, "status", 2));
        let linked = || hubs.linked_app_servers(DEFAULT_GROUP).iter().map(|app| app.id.0).collect::<Vec<_>>();
        assert_eq!(linked(), [0, 1]);
        chat.pools()[0].lost(0);
        chat.pools()[0].lost(1);
        assert_eq!(linked().len(), 2, "the other hub still has links");
        status.pools()[0].lost(0);
        status.pools()[0].lost(1);
        assert_eq!(linked(), [1]);
        assert!(chat.pools()[1].begin_drain() && status.pools()[1].begin_drain());
        assert_eq!(linked(), [1], "one that is about to stop is better than none");
        status.pools()[0].opened(0, Arc::new(LinkHandle::opened(status.index(), AppServerId(0))));
        assert_eq!(linked(), [0]);
    }

    #[test]
    fn paths_are_found_without_regard_to_case() {
        let hubs = HubRegistry::default();
        hubs.learn(HubManifest::new("status", "/statusHub"), &ServerGroup::default());
        assert!(hubs.find("/STATUSHUB").is_some());
        assert!(hubs.find("/statushub/").is_some());
        assert!(hubs.find("/other").is_none());
        assert!(hubs.find("/").is_none());
        hubs.learn(HubManifest::new("root", "/"), &ServerGroup::default());
        assert!(hubs.find("/").is_some());
    }
}
