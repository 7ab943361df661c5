//! Hub: its settings, the app servers that serve it, and which of their links is a client connection's home.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;
use trunkline_protocol::limits::STATEFUL_RECONNECT_BUFFER_BYTES;
use trunkline_protocol::manifest::HubManifest;

use super::app_server::{AppServer, AppTarget};
use super::capability::HubCapabilities;
use super::hub_identity::{HubIdentity, HubOrigin};
use super::hub_naming::HubNaming;
use super::number::{AppServerId, HubIndex};
use super::{HomeLink, Pool};
use crate::routing::{DEFAULT_GROUP, HubRules};

/// A hub: its settings, and the app servers that serve it.
#[derive(Debug)]
pub struct Hub {
    identity: Arc<HubIdentity>,
    settings: ArcSwap<HubManifest>,
    /// Rules of the operator for its messages; `None` without any.
    rules: ArcSwapOption<HubRules>,
    /// Whether its rules have to see single messages: what a reader asks at each read.
    reads_messages: AtomicBool,
    pools: ArcSwap<Vec<Arc<Pool>>>,
    next: AtomicUsize,
    /// Authorizations take turns separately: each client brings one and then needs a home, so of two app servers one
    /// would get them all.
    next_authorizing: AtomicUsize,
    /// Held while a pool of an app server that dials in begins or ends.
    changing: Mutex<()>,
}

impl Hub {
    /// Hub without app servers yet.
    pub(super) fn new(index: HubIndex, origin: HubOrigin, settings: HubManifest) -> Self {
        Self {
            identity: Arc::new(HubIdentity::new(index, origin, &settings.name)),
            settings: ArcSwap::from_pointee(settings),
            rules: ArcSwapOption::empty(),
            reads_messages: AtomicBool::new(false),
            pools: ArcSwap::default(),
            next: AtomicUsize::new(0),
            next_authorizing: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }

    /// Its identity, as its pools have it.
    #[must_use]
    pub(crate) fn identity(&self) -> &Arc<HubIdentity> {
        &self.identity
    }

    #[must_use]
    pub(crate) fn index(&self) -> HubIndex {
        self.identity.index()
    }

    /// Its name, as links, logs and metrics have it.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.identity.name()
    }

    /// Its name among all hubs of the fleet, whatever their origin.
    #[must_use]
    pub(crate) fn key(&self) -> &str {
        self.identity.key()
    }

    /// Capabilities of its app servers and clients.
    #[must_use]
    pub(crate) fn capabilities(&self) -> &'static HubCapabilities {
        self.identity.capabilities()
    }

    /// Whether a webhook serves it.
    #[must_use]
    pub(crate) fn has_webhook(&self) -> bool {
        matches!(self.origin(), HubOrigin::Webhook | HubOrigin::WebhookPattern)
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

    pub(super) fn set_rules(&self, rules: Option<Arc<HubRules>>) {
        let reads_messages = rules.as_ref().is_some_and(|rules| rules.read_messages());
        self.rules.store(rules);
        self.reads_messages.store(reads_messages, Ordering::Relaxed);
    }

    /// Path by which rules name it: its own, or by dial-in its name behind a slash.
    #[must_use]
    pub(crate) fn rule_path(&self) -> String {
        match self.origin() {
            HubOrigin::Manifest => self.settings.load().path.clone(),
            HubOrigin::DialIn | HubOrigin::Webhook | HubOrigin::WebhookPattern => format!("/{}", self.name()),
        }
    }

    /// Way on which it has come to this node.
    #[must_use]
    pub(super) fn origin(&self) -> HubOrigin {
        self.identity.origin()
    }

    /// Takes the settings of a newer manifest.
    pub(super) fn set_settings(&self, settings: HubManifest) {
        self.settings.store(Arc::new(settings));
    }

    /// Naming of it by app servers.
    pub(super) fn naming(&self) -> &HubNaming {
        self.identity.naming()
    }

    /// Whether nobody has named it for long: it is found by nobody.
    #[must_use]
    pub(crate) fn is_forgotten(&self) -> bool {
        self.naming().is_forgotten()
    }

    /// Whether any app server that names it has a link here, with a socket or about to get one again. A webhook names
    /// nothing: it serves what others name.
    #[must_use]
    pub(super) fn is_linked(&self) -> bool {
        let is_webhook = |pool: &Pool| self.has_webhook() && matches!(pool.app().target, AppTarget::Memory(_));
        self.pools.load().iter().any(|pool| !pool.is_empty() && !is_webhook(pool))
    }

    /// Forgets that anybody has named it, and ends the links of its webhook.
    pub(super) fn forget(&self) {
        self.naming().forget();
        if self.has_webhook() {
            self.retire_pools();
        }
    }

    /// Ends the pools of a hub that is forgotten: the links of its webhook, and those of app servers that are empty.
    fn retire_pools(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.pools.swap(Arc::default()).iter().for_each(|pool| pool.retire());
    }

    /// Whether the start of the node waits for the first links to its app servers.
    #[must_use]
    pub(super) fn is_awaited(&self) -> bool {
        self.naming().is_awaited() && !self.is_served() && !self.pools.load().is_empty()
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

    /// Whether somebody has to serve it: an app server of the default group has named it, or one takes clients of it
    /// now. What only a mirror names need not be served.
    #[must_use]
    pub(crate) fn is_expected(&self) -> bool {
        let is_for_clients = |pool: &Arc<Pool>| !pool.app().group.is_mirror();
        self.naming().is_of_default() || self.pools.load().iter().any(is_for_clients)
    }

    /// Whether any app server of a group can be reached that is not about to stop.
    #[must_use]
    pub(crate) fn is_served_by(&self, group: &str) -> bool {
        self.pools_of(group).iter().any(|pool| pool.is_up())
    }

    /// Whether another app server of a pool's group can be reached that is not about to stop.
    #[must_use]
    pub(crate) fn is_served_beside(&self, pool: &Pool) -> bool {
        let app = pool.app();
        self.pools_of(app.group.name()).iter().any(|other| other.app().id != app.id && other.is_up())
    }

    /// Its pools of the app servers of a group.
    pub(super) fn pools_of(&self, group: &str) -> Vec<Arc<Pool>> {
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
            let begun_at = (self.origin() == HubOrigin::DialIn && pools.is_empty()) || self.has_webhook();
            let begun_at = begun_at.then(|| self.naming().learnt_at());
            let lost_at = pools.iter().filter_map(|pool| pool.lost_at()).max().max(begun_at);
            lost_at.map(|lost_at| last.min(lost_at + window)).filter(|until| *until > Instant::now())
        };
        self.identity.wait(until).await;
    }

    /// Waits until one app server can be reached, for at most this long.
    pub(crate) async fn wait_until_reached(&self, app: AppServerId, limit: Duration, is_over: impl Fn() -> bool) {
        let last = Instant::now() + limit;
        let is_reached = || self.pool_of(app).is_some_and(|pool| pool.open() > 0);
        let until = || (!is_reached() && !is_over()).then_some(last).filter(|until| *until > Instant::now());
        self.identity.wait(until).await;
    }

    /// Wakes those that wait until the hub is served, to look again.
    pub(crate) fn wake_waiters(&self) {
        self.identity.wake_waiters();
    }

    /// The link for a new client connection of a group: its app servers take turns by their weights, then the links of
    /// a pool do.
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
