//! Registry of the hubs that this node serves, learnt from the manifests of app servers.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use trunkline_protocol::manifest::HubManifest;

use super::app_server::{AppServer, AppTarget};
use super::hub::{Hub, HubOrigin};
use super::number::{AppServerId, HubIndex};
use super::{GroupTerms, HomeLink, ServerGroup};
use crate::metrics::RuleCounters;
use crate::routing::Ruleset;

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
        with_paths.find(|hub| without_slash(&hub.settings().path).eq_ignore_ascii_case(path)).cloned()
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
        self.all.load().iter().find(|hub| hub.key() == key).cloned()
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
                if group.is_default() || (!group.is_mirror() && !hub.is_of_default()) {
                    hub.set_settings(settings);
                    hub.set_rules(self.rules.load().of_hub(&hub.rule_path()));
                }
                hub
            }
            None => self.insert(HubOrigin::Manifest, settings),
        };
        if group.is_default() {
            hub.name_by_default();
        }
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
        let index = HubIndex(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let hub = Arc::new(Hub::new(index, origin, settings));
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

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::DEFAULT_GROUP;
    use crate::upstream::{LinkHandle, Pool};

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
