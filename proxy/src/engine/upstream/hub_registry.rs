//! Registry of the hubs of a node, from the manifests of app servers and by dial-in.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{debug, info};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::RecordedSet;

use super::app_server::{AppServer, AppServerRegister, AppTarget};
use super::hub::{Hub, prefer};
use super::hub_identity::{HubOrigin, decode_path};
use super::number::{AppServerId, HubIndex};
use super::{LinkHandle, Pool, ServerGroup, ServerGroups};
use crate::ground::auth::Signer;
use crate::ground::limits::{SignerShare, TableFull};
use crate::ground::metrics::RuleCounters;
use crate::ground::routing::{HistoryTerms, Ruleset};

/// Maximum number of hubs that app servers and clients may register by dial-in.
pub(crate) const DIAL_IN_HUBS_MAX: usize = 1000;

/// Registry of all hubs of a node. The index of a hub is its position, which a later hub may reuse.
#[derive(Debug, Default)]
pub(crate) struct HubRegistry {
    all: ArcSwap<Vec<Arc<Hub>>>,
    rules: ArcSwap<Ruleset>,
    pub(crate) rule_counters: RuleCounters,
    pub(crate) groups: ServerGroups,
    /// Indices of removed, unused hubs. Locked while the hubs or the rules change.
    free: Mutex<BTreeSet<HubIndex>>,
    pub(crate) app_servers: AppServerRegister,
}

impl HubRegistry {
    /// Finds a hub by index, including removed hubs.
    pub(crate) fn at(&self, index: HubIndex) -> Option<Arc<Hub>> {
        self.all.load().get(index.get()).cloned()
    }

    /// Finds the pool of a link; `None` if its app server is gone.
    pub(crate) fn pool_of(&self, link: &LinkHandle) -> Option<Arc<Pool>> {
        self.at(link.hub())?.pool_of(link.app)
    }

    /// Hub of a pool; `None` if another hub has its index.
    pub(crate) fn of_pool(&self, pool: &Pool) -> Option<Arc<Hub>> {
        self.all.load().get(pool.hub.index.get()).filter(|hub| Arc::ptr_eq(&hub.identity, &pool.hub)).cloned()
    }

    pub(crate) fn rules(&self) -> Arc<Ruleset> {
        self.rules.load_full()
    }

    /// Replaces the rules for all present and later hubs.
    pub(crate) fn apply_rules(&self, rules: &Ruleset) {
        let _changing = self.free();
        let rules = Arc::new(rules.counted(&self.rule_counters));
        for hub in self.all.load().iter() {
            hub.set_rules(rules.of_hub(&hub.rule_path()));
        }
        self.rules.store(rules);
    }

    /// Finds a pool of an app server instance that this node dials. Instances that dial in choose their ids, and so
    /// must not block others.
    pub(crate) fn pool_to(&self, instance: &str) -> Option<Arc<Pool>> {
        let all = self.all.load();
        let mut pools = all.iter().flat_map(|hub| hub.pools().to_vec());
        pools.find(|pool| pool.app.instance == instance && !matches!(pool.app.target, AppTarget::DialsIn(_)))
    }

    /// All hubs by index, including removed hubs.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Hub>>> {
        self.all.load_full()
    }

    /// All hubs except removed hubs.
    pub(crate) fn living(&self) -> Vec<Arc<Hub>> {
        self.all.load().iter().filter(|hub| !hub.is_removed()).cloned().collect()
    }

    /// Finds the hub of a path, ignoring case, preferably a served one: after a release, a second hub may have the same
    /// path.
    pub(crate) fn find(&self, path: &str) -> Option<Arc<Hub>> {
        let (path, all) = (decode_path(path.strip_suffix('/').unwrap_or(path)), self.all.load());
        let with_paths = all.iter().filter(|hub| !hub.is_removed() && hub.origin() != HubOrigin::DialIn);
        let mut found = with_paths.filter(|hub| {
            let known = hub.settings();
            decode_path(known.path.strip_suffix('/').unwrap_or(&known.path)).eq_ignore_ascii_case(&path)
        });
        let first = found.next()?;
        let better = found.find(|other| other.is_served() && !first.is_served());
        Some(better.unwrap_or(first).clone())
    }

    /// Whether any expected hub is served, and none is still awaited at the start. Without an expected hub, `true`
    /// unless one `must_be` served. One served hub is enough, and dial-in hubs are dynamic.
    pub(crate) fn are_served(&self, must_be: bool) -> bool {
        let expected = self.expected();
        match expected.is_empty() {
            true => !must_be,
            false => expected.iter().any(|hub| hub.is_served()) && !expected.iter().any(|hub| hub.is_awaited()),
        }
    }

    /// Expected hubs of manifests without an app server that takes clients.
    pub(crate) fn unserved(&self) -> Vec<Arc<Hub>> {
        self.expected().into_iter().filter(|hub| !hub.is_served()).collect()
    }

    fn expected(&self) -> Vec<Arc<Hub>> {
        self.living().into_iter().filter(|hub| hub.origin() == HubOrigin::Manifest && hub.is_expected()).collect()
    }

    /// Finds a present hub by its key.
    pub(crate) fn keyed(&self, key: &str) -> Option<Arc<Hub>> {
        self.known(key).filter(|hub| !hub.is_removed())
    }

    /// How a hub with this key records a group or a user; `None` without a record. Without the hub of a manifest, this
    /// node does not know.
    pub(crate) fn history_of(&self, key: &str, set: &RecordedSet) -> Option<HistoryTerms> {
        match self.keyed(key) {
            Some(hub) => hub.history_of(set),
            None => {
                let name = Some(HubOrigin::name_in(key)).filter(|name| *name != key)?;
                self.rules().of_hub(&format!("/{name}"))?.history_of(set)
            }
        }
    }

    /// Finds a hub by its key, including removed hubs.
    fn known(&self, key: &str) -> Option<Arc<Hub>> {
        self.all.load().iter().find(|hub| hub.key() == key).cloned()
    }

    /// Hubs unnamed for this long. Each call updates the times, so it should be called about once a second.
    ///
    /// A hub of manifests stays named while no app server of its groups is linked: all may be restarting. A hub of a
    /// pattern webhook is named by its clients; `has_clients` returns whether its webhook has any.
    pub(crate) fn unnamed_for(&self, limit: Duration, has_clients: impl Fn(&str) -> bool) -> Vec<Arc<Hub>> {
        for hub in self.all.load().iter().filter(|hub| hub.is_removed() && hub.is_linked()) {
            // A link opened after the removal.
            self.recall(hub, &mut self.free());
        }
        let living = self.living();
        let are_others_named = |of_default: bool| {
            let is_evidence = |hub: &&Arc<Hub>| hub.origin() == HubOrigin::Manifest;
            let mut pools = living.iter().filter(is_evidence).flat_map(|hub| hub.pools().to_vec());
            pools
                .any(|pool| pool.is_up() && !pool.app.group.is_mirror() && (!of_default || pool.app.group.is_default()))
        };
        let is_unnamed = |hub: &Arc<Hub>| match hub.origin() {
            HubOrigin::Webhook => false,
            HubOrigin::WebhookPattern => !hub.is_linked() && !has_clients(hub.name()),
            HubOrigin::DialIn => !hub.is_linked(),
            HubOrigin::Manifest => !hub.is_linked() && are_others_named(hub.naming().is_of_default()),
        };
        let is_due = |hub: &Arc<Hub>| hub.naming().note_naming(!is_unnamed(hub)).is_some_and(|time| time >= limit);
        living.iter().filter(|hub| is_due(hub)).cloned().collect()
    }

    /// Removes a hub that was unnamed for this long; `false` if it was named in the meantime.
    pub(crate) fn remove(&self, hub: &Hub, limit: Duration) -> bool {
        let _changing = self.free();
        let is_unnamed = hub.naming().note_naming(hub.is_linked()).is_some_and(|time| time >= limit);
        if is_unnamed {
            hub.remove();
        }
        is_unnamed
    }

    /// Notes which hubs of dial-in have links or clients now.
    pub(crate) fn note_use(&self, has_clients: impl Fn(&Hub) -> bool) {
        for hub in self.living().iter().filter(|hub| hub.origin() != HubOrigin::Manifest) {
            hub.naming().note_use(hub.is_linked() || has_clients(hub));
        }
    }

    /// Removes the hub that was idle for longest, among those of one signer if its share is full. Returns `false`
    /// without an idle hub, or if removed hubs still in use fill the table.
    fn evict_idle(&self, living: &[Arc<Hub>], signer: Option<&Signer>, free: usize) -> bool {
        let all = self.all.load();
        let is_evictable = |hub: &&Arc<Hub>| {
            matches!(hub.origin(), HubOrigin::DialIn | HubOrigin::WebhookPattern)
                && signer.is_none_or(|signer| hub.naming().is_by(signer))
                && !hub.is_linked()
        };
        let idle = living.iter().filter(is_evictable).filter_map(|hub| Some((hub.naming().evictable_since()?, hub)));
        let Some((_, hub)) = idle.min_by_key(|(since, _)| *since) else { return false };
        let unreleased = all.len().saturating_sub(living.len() + free);
        if unreleased >= DIAL_IN_HUBS_MAX {
            return false;
        }
        hub.remove();
        debug!(hub = hub.name(), "idle hub evicted: the table of hubs is full");
        true
    }

    /// Indices of removed hubs that only this registry holds. No client can reach such a hub.
    pub(crate) fn unheld(&self) -> Vec<HubIndex> {
        let (free, all) = (self.free(), self.all.load());
        let is_unheld =
            |hub: &&Arc<Hub>| hub.is_removed() && Arc::strong_count(hub) == 1 && !free.contains(&hub.index());
        all.iter().filter(is_unheld).map(|hub| hub.index()).collect()
    }

    /// Frees the index of a removed hub for the next new hub. The caller has checked that nothing used the index since
    /// it was [unheld](Self::unheld).
    pub(crate) fn release(&self, index: HubIndex) {
        let mut free = self.free();
        if self.all.load().get(index.get()).is_some_and(|hub| hub.is_removed()) {
            free.insert(index);
        }
    }

    /// Finds a hub by name. A hub of a manifest is preferred to a hub of dial-in.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Hub>> {
        self.keyed(name).or_else(|| self.keyed(&HubOrigin::DialIn.key(name)))
    }

    /// Distinct remote app servers of a group with an open link. Draining and delisted ones are included only if there
    /// are no others.
    pub(crate) fn linked_app_servers(&self, group: &str) -> Vec<Arc<AppServer>> {
        let all = self.all.load();
        let is_linked = |pool: &Arc<Pool>| pool.open_links() > 0 && matches!(pool.app.target, AppTarget::Network(_));
        let mut linked: Vec<_> = all.iter().flat_map(|hub| hub.pools_of(group)).filter(is_linked).collect();
        prefer(&mut linked, |pool| !pool.is_draining());
        prefer(&mut linked, |pool| pool.app.is_listed());
        let mut seen = HashSet::new();
        linked.iter().map(|pool| pool.app.clone()).filter(|app| seen.insert(app.id)).collect()
    }

    /// Whether no manifest was read yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.load().iter().all(|hub| hub.origin() != HubOrigin::Manifest)
    }

    /// Registers a hub from a manifest of an app server, or updates its settings. Settings of the default group take
    /// precedence: other groups may be another version.
    pub(crate) fn register(&self, settings: HubManifest, group: &ServerGroup) -> Arc<Hub> {
        let mut free = self.free();
        let hub = match self.known(&settings.name) {
            Some(hub) => {
                self.recall(&hub, &mut free);
                if group.is_default() || (!group.is_mirror() && !hub.naming().is_of_default()) {
                    hub.set_settings(settings);
                    hub.set_rules(self.rules.load().of_hub(&hub.rule_path()));
                }
                hub
            }
            None => {
                let is_first = !self.expected().iter().any(|hub| hub.is_served());
                let hub = self.insert(HubOrigin::Manifest, settings, &mut free);
                if is_first {
                    hub.naming().await_links();
                }
                hub
            }
        };
        if group.is_default() {
            hub.naming().name_by_default();
        }
        hub
    }

    /// Registers a hub that was named by dial-in with a token, or that a webhook serves. Fails if there are too many
    /// hubs in total, or of the token's signer.
    pub(crate) fn register_as(
        &self,
        origin: HubOrigin,
        settings: HubManifest,
        share: &SignerShare,
    ) -> Result<Arc<Hub>, TableFull> {
        let mut free = self.free();
        let known = self.known(&origin.key(&settings.name));
        if let Some(hub) = known.as_ref().filter(|hub| !hub.is_removed()) {
            match hub.origin() {
                // A client is about to connect, and needs the existing links.
                HubOrigin::WebhookPattern => drop(hub.naming().recall()),
                _ => hub.naming().note_use(true),
            }
            return Ok(hub.clone());
        }
        let living = self.living();
        let named = || living.iter().filter(|hub| hub.origin() != HubOrigin::Manifest);
        let own = named().filter(|hub| hub.naming().is_by(&share.signer)).count();
        if let Err(full) = share.check(DIAL_IN_HUBS_MAX, named().count(), own)
            && !self.evict_idle(&living, full.key.as_ref(), free.len())
        {
            return Err(full);
        }
        let hub = match known {
            None => self.insert(origin, settings, &mut free),
            Some(hub) => {
                hub.set_settings(settings);
                self.recall(&hub, &mut free);
                hub
            }
        };
        hub.naming().name_by(&share.signer);
        Ok(hub)
    }

    /// Restores a hub that was removed or unnamed.
    fn recall(&self, hub: &Hub, free: &mut BTreeSet<HubIndex>) {
        free.remove(&hub.index());
        if hub.naming().recall() {
            hub.set_rules(self.rules.load().of_hub(&hub.rule_path()));
            info!(hub = hub.name(), "removed hub announced again");
        }
    }

    fn insert(&self, origin: HubOrigin, settings: HubManifest, free: &mut BTreeSet<HubIndex>) -> Arc<Hub> {
        let mut all = self.all.load().to_vec();
        let index = free.pop_first().unwrap_or_else(|| HubIndex(u32::try_from(all.len()).unwrap_or(u32::MAX)));
        let hub = Arc::new(Hub::new(index, origin, settings));
        hub.set_rules(self.rules.load().of_hub(&hub.rule_path()));
        match all.get_mut(index.get()) {
            Some(place) => *place = hub.clone(),
            None => all.push(hub.clone()),
        }
        self.all.store(Arc::new(all));
        hub
    }

    pub(crate) fn number(&self, instance: &str) -> AppServerId {
        self.app_servers.number(instance, &Signer::Fleet)
    }

    pub(crate) fn instance(&self, app: AppServerId) -> Arc<str> {
        self.app_servers.instance(app)
    }

    /// Removes app servers that had neither links nor clients for this time; returns their number.
    pub(crate) fn remove_unused_app_servers(&self, clients_of: &HashSet<AppServerId>, limit: Duration) -> usize {
        let hubs = self.all.load();
        let linked: HashSet<_> = hubs.iter().flat_map(|hub| hub.pools().to_vec()).map(|pool| pool.app.id).collect();
        self.app_servers.sweep(|id| linked.contains(&id) || clients_of.contains(&id), limit)
    }

    fn free(&self) -> MutexGuard<'_, BTreeSet<HubIndex>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::service::{Role, Session, SessionId, SessionSettings};

    use super::*;
    use crate::ground::net::address::Address;
    use crate::ground::routing::DEFAULT_GROUP;

    /// Sets whether the address of an app server is listed.
    fn list(hub: &Hub, app: usize, is_listed: bool) {
        let pool = hub.pools()[app].clone();
        let AppTarget::Network(address) = &pool.app.target else { panic!("it is dialled") };
        address.set_listed(is_listed);
    }

    fn hub_with(apps: u32) -> Arc<Hub> {
        hub_of(&HubRegistry::default(), "chat", apps)
    }

    fn hub_of(hubs: &HubRegistry, name: &str, apps: u32) -> Arc<Hub> {
        let hub = hubs.register(HubManifest::new(name, &format!("/{name}")), &ServerGroup::default());
        for app in 0..apps {
            let server = AppServer {
                id: AppServerId(app),
                instance: app.to_string(),
                name: String::new(),
                target: AppTarget::Network("http://app".parse::<Address>().unwrap().at(([10, 0, 0, 1], 80).into())),
                group: Arc::default(),
            };
            let pool = Arc::new(Pool::new(hub.identity.clone(), Arc::new(server), 2, Arc::default()));
            for slot in 0..2 {
                pool.opened(slot, Arc::new(LinkHandle::opened(&hub.identity, AppServerId(app))));
            }
            hub.add_pool(pool);
        }
        hub
    }

    #[test]
    fn new_connections_alternate_between_app_servers_and_then_between_links() {
        let hub = hub_with(2);
        let homes: Vec<_> = (0..4).map(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap()).collect();
        let apps: Vec<_> = homes.iter().map(|home| home.app.0).collect();
        assert_eq!(apps, [0, 1, 0, 1]);
        assert_ne!(homes[0].id, homes[2].id);
    }

    #[test]
    fn a_connection_without_a_home_stays_at_its_app_server_if_that_has_another_link() {
        let hub = hub_with(2);
        assert!((0..3).all(|_| hub.choose_home_near(AppServerId(1), DEFAULT_GROUP).unwrap().app.0 == 1));
        assert!(hub.pools()[1].begin_drain());
        assert!((0..3).all(|_| hub.choose_home_near(AppServerId(1), DEFAULT_GROUP).unwrap().app.0 == 0));
        hub.pools()[0].lost(0);
        hub.pools()[0].lost(1);
        assert!(hub.choose_home_near(AppServerId(1), DEFAULT_GROUP).is_none() && !hub.is_served());
    }

    #[test]
    fn an_app_server_with_a_disconnected_link_gets_clients_only_if_no_other_is_whole() {
        let hub = hub_with(2);
        let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(1_000, 1_000), 0);
        let waiting = LinkHandle::new(hub.identity.clone(), AppServerId(0), usize::MAX, session);
        hub.pools()[0].opened(0, Arc::new(waiting));
        assert_eq!((hub.pools()[0].open_links(), hub.pools()[0].resuming()), (1, 1));
        assert!((0..4).all(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap().app.0 == 1));
        assert!(hub.pools()[1].begin_drain());
        assert!((0..4).all(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap().app.0 == 0));
    }

    #[test]
    fn an_instance_has_one_number_wherever_it_is_met() {
        let hubs = HubRegistry::default();
        let (a, b) = (hubs.number("a"), hubs.number("b"));
        assert!(a != b && hubs.number("a") == a);
        assert_eq!((&*hubs.instance(b), &*hubs.instance(AppServerId::NONE)), ("b", ""));
    }

    #[test]
    fn an_app_server_that_dials_in_keeps_none_of_the_same_id_out_of_its_group() {
        let hubs = HubRegistry::default();
        let share = SignerShare::new(Signer::Fleet, false);
        let hub = hubs.register_as(HubOrigin::DialIn, HubManifest::new("chat", "/client"), &share).unwrap();
        for (target, is_known) in
            [(AppTarget::DialsIn(None), false), (AppTarget::Network("http://app".parse().unwrap()), true)]
        {
            let (id, instance) = (AppServerId(0), "app-1".to_owned());
            let app = AppServer { id, instance, name: String::new(), target, group: Arc::default() };
            hub.add_pool(Arc::new(Pool::new(hub.identity.clone(), Arc::new(app), 1, Arc::default())));
            assert_eq!(hubs.pool_to("app-1").is_some(), is_known);
        }
    }

    #[test]
    fn an_app_server_without_open_links_is_skipped() {
        let hub = hub_with(2);
        hub.pools()[0].lost(0);
        hub.pools()[0].lost(1);
        assert!((0..3).all(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap().app.0 == 1));
    }

    #[test]
    fn authorizations_and_homes_alternate_separately() {
        let hub = hub_with(2);
        let clients =
            (0..4).map(|_| (hub.apps_in_turn(DEFAULT_GROUP)[0].id.0, hub.choose_home_in(DEFAULT_GROUP).unwrap().app.0));
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
    fn an_app_server_that_left_its_name_gets_nothing_new_while_a_listed_one_is_up() {
        let hubs = HubRegistry::default();
        let hub = hub_of(&hubs, "chat", 3);
        let chosen = || {
            let clients: HashSet<_> = (0..6).map(|_| hub.choose_home_in(DEFAULT_GROUP).unwrap().app.0).collect();
            let questions: HashSet<_> = (0..6).map(|_| hub.apps_in_turn(DEFAULT_GROUP)[0].id.0).collect();
            let requests: HashSet<_> = hubs.linked_app_servers(DEFAULT_GROUP).iter().map(|app| app.id.0).collect();
            assert_eq!((&clients, &questions), (&requests, &requests), "one rule for all");
            let mut chosen: Vec<_> = clients.into_iter().collect();
            chosen.sort_unstable();
            chosen
        };
        list(&hub, 0, false);
        assert_eq!(chosen(), [1, 2]);
        let near = |app| hub.choose_home_near(AppServerId(app), DEFAULT_GROUP).unwrap().app.0;
        assert_eq!(near(0), 0, "a client that is there may stay");
        assert!(hub.pools()[1].begin_drain());
        assert_ne!(near(1), 0);
        hub.pools()[2].lost(0);
        hub.pools()[2].lost(1);
        assert_eq!(chosen(), [0], "it is better than none");
        hub.pools()[2].opened(0, Arc::new(LinkHandle::opened(&hub.identity, AppServerId(2))));
        assert_eq!(chosen(), [2]);
        list(&hub, 0, true);
        assert_eq!(chosen(), [0, 2], "it is listed again");
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
        status.pools()[0].opened(0, Arc::new(LinkHandle::opened(&status.identity, AppServerId(0))));
        assert_eq!(linked(), [0]);
    }

    #[test]
    fn paths_are_found_without_regard_to_case_and_escapes() {
        let hubs = HubRegistry::default();
        hubs.register(HubManifest::new("status", "/statusHub"), &ServerGroup::default());
        assert!(hubs.find("/STATUSHUB").is_some());
        assert!(hubs.find("/statushub/").is_some());
        assert!(hubs.find("/st%61tus%48ub").is_some());
        hubs.register(HubManifest::new("room", "/a%20room~"), &ServerGroup::default());
        assert!(hubs.find("/a%20room~").is_some() && hubs.find("/%61%20room%7E").is_some());
        assert!(hubs.find("/other").is_none());
        assert!(hubs.find("/").is_none());
        hubs.register(HubManifest::new("root", "/"), &ServerGroup::default());
        assert!(hubs.find("/").is_some());
    }
}
