//! Hub: settings, app servers, and the choice of a home link for each client connection.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;
use tracing::warn;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::limits::STATEFUL_RECONNECT_BUFFER_BYTES;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::RecordedSet;

use super::app_server::AppServer;
use super::capability::HubCapabilities;
use super::hub_identity::{HubIdentity, HubNaming, HubOrigin};
use super::number::{AppServerId, HubIndex};
use super::{HomeLink, Pool};
use crate::ground::routing::{DEFAULT_GROUP, HistoryTerms, HubRules};

/// A hub with its settings and the pools of its app servers.
#[derive(Debug)]
pub struct Hub {
    pub(crate) identity: Arc<HubIdentity>,
    settings: ArcSwap<HubManifest>,
    /// Rules of the operator for its messages, if there are any.
    rules: ArcSwapOption<HubRules>,
    /// Whether the rules inspect single messages. Readers check this flag at each read.
    reads_messages: AtomicBool,
    /// Protocols of clients that have negotiated compression, one bit each.
    compressed: AtomicU8,
    pools: ArcSwap<Vec<Arc<Pool>>>,
    next: AtomicUsize,
    /// Separate turn counter for authorizations. Each client needs an authorization and a home link; with a shared
    /// counter, one of two app servers would get all authorizations.
    next_authorizing: AtomicUsize,
    /// Locked while a pool of an app server that dials in is added or removed.
    changing: Mutex<()>,
}

impl Hub {
    /// A hub without app servers.
    pub(super) fn new(index: HubIndex, origin: HubOrigin, settings: HubManifest) -> Self {
        Self {
            identity: Arc::new(HubIdentity::new(index, origin, &settings.name)),
            settings: ArcSwap::from_pointee(settings),
            rules: ArcSwapOption::empty(),
            reads_messages: AtomicBool::new(false),
            compressed: AtomicU8::new(0),
            pools: ArcSwap::default(),
            next: AtomicUsize::new(0),
            next_authorizing: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }

    pub(crate) fn index(&self) -> HubIndex {
        self.identity.index
    }

    /// Name in links, logs and metrics.
    pub(crate) fn name(&self) -> &str {
        self.identity.name()
    }

    /// Unique name in the fleet: hubs of different origins may share a name.
    pub(crate) fn key(&self) -> &str {
        self.identity.key()
    }

    pub(crate) fn capabilities(&self) -> &'static HubCapabilities {
        self.identity.capabilities()
    }

    pub(crate) fn has_webhook(&self) -> bool {
        matches!(self.origin(), HubOrigin::Webhook | HubOrigin::WebhookPattern)
    }

    /// Settings of the newest manifest.
    pub(crate) fn settings(&self) -> Arc<HubManifest> {
        self.settings.load_full()
    }

    pub(crate) fn rules(&self) -> Option<Arc<HubRules>> {
        self.rules.load_full()
    }

    /// How many messages to a group or a user are kept; `None` without a record.
    pub(crate) fn history_of(&self, set: &RecordedSet) -> Option<HistoryTerms> {
        self.rules()?.history_of(set)
    }

    /// Whether messages to any group or user are recorded.
    pub(crate) fn has_history(&self) -> bool {
        self.rules.load().as_ref().is_some_and(|rules| rules.has_history())
    }

    /// Rules of the operator, if the rules inspect each message.
    pub(crate) fn message_rules(&self) -> Option<Arc<HubRules>> {
        if self.reads_messages.load(Ordering::Relaxed) { self.rules() } else { None }
    }

    /// Notes a client of this protocol that negotiated compression.
    pub(crate) fn note_compressed(&self, protocol: HubProtocol) {
        self.compressed.fetch_or(1 << protocol as u8, Ordering::Relaxed);
    }

    /// Whether any client of this protocol has negotiated compression so far.
    pub(crate) fn has_compressed(&self, protocol: HubProtocol) -> bool {
        self.compressed.load(Ordering::Relaxed) & 1 << protocol as u8 != 0
    }

    pub(super) fn set_rules(&self, rules: Option<Arc<HubRules>>) {
        let rules = match self.capabilities().sends_to_all_nodes {
            false => rules,
            // Only the app servers can send a message to a record instead of all nodes.
            true => {
                if rules.as_ref().is_some_and(|rules| rules.has_history()) {
                    let hub = self.name();
                    warn!(hub, "history rules have no effect at this hub: its app servers choose (Hub::history)");
                }
                HubRules::with_records(rules.as_deref(), &self.settings.load().history)
            }
        };
        let reads_messages = rules.as_ref().is_some_and(|rules| rules.read_messages());
        self.rules.store(rules);
        self.reads_messages.store(reads_messages, Ordering::Relaxed);
    }

    /// Path for matching rules: the path of the hub, or for dial-in a slash and its name.
    pub(crate) fn rule_path(&self) -> String {
        match self.origin() {
            HubOrigin::Manifest => self.settings.load().path.clone(),
            HubOrigin::DialIn | HubOrigin::Webhook | HubOrigin::WebhookPattern => format!("/{}", self.name()),
        }
    }

    pub(super) fn origin(&self) -> HubOrigin {
        self.identity.origin
    }

    pub(crate) fn set_settings(&self, settings: HubManifest) {
        self.settings.store(Arc::new(settings));
    }

    pub(super) fn naming(&self) -> &HubNaming {
        &self.identity.naming
    }

    /// Whether the hub was removed. Lookups by path or name then fail.
    pub(crate) fn is_removed(&self) -> bool {
        self.naming().is_removed()
    }

    /// Whether any app server that names the hub has a link, even if disconnected. A webhook does not count, because it
    /// names no hubs.
    pub(super) fn is_linked(&self) -> bool {
        self.pools.load().iter().any(|pool| !pool.is_empty() && !pool.app.target.is_webhook())
    }

    /// Marks the hub as removed, and ends the links of its webhook.
    pub(super) fn remove(&self) {
        self.naming().remove();
        if self.has_webhook() {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            self.pools.swap(Arc::default()).iter().for_each(|pool| pool.retire());
        }
    }

    /// Whether the starting node waits for the first links of the hub.
    pub(super) fn is_awaited(&self) -> bool {
        self.naming().is_awaited() && !self.is_served() && !self.pools.load().is_empty()
    }

    /// Applies the stateful reconnect setting of an app server that has dialled in.
    pub(crate) fn note_reconnects(&self, are_allowed: bool) {
        let bytes = are_allowed.then_some(STATEFUL_RECONNECT_BUFFER_BYTES);
        let known = self.settings.load();
        if known.stateful_reconnect_buffer_bytes != bytes {
            let changed = HubManifest { stateful_reconnect_buffer_bytes: bytes, ..HubManifest::clone(&known) };
            self.settings.store(Arc::new(changed));
        }
    }

    pub(crate) fn pools(&self) -> Arc<Vec<Arc<Pool>>> {
        self.pools.load_full()
    }

    /// Whether any app server is up that takes clients.
    pub(crate) fn is_served(&self) -> bool {
        self.pools.load().iter().any(|pool| !pool.app.group.is_mirror() && pool.is_up())
    }

    /// Whether the hub needs an app server: the default group has named it, or an app server that accepts clients has a
    /// pool. A mirror's hub needs none.
    pub(crate) fn is_expected(&self) -> bool {
        let is_for_clients = |pool: &Arc<Pool>| !pool.app.group.is_mirror();
        self.naming().is_of_default() || self.pools.load().iter().any(is_for_clients)
    }

    /// Whether any app server of a group is up.
    pub(crate) fn is_served_by(&self, group: &str) -> bool {
        self.pools_of(group).iter().any(|pool| pool.is_up())
    }

    /// Whether another app server in the group of a pool is up.
    pub(crate) fn is_served_beside(&self, pool: &Pool) -> bool {
        let app = &pool.app;
        self.pools_of(&app.group.name).iter().any(|other| other.app.id != app.id && other.is_up())
    }

    pub(crate) fn pools_of(&self, group: &str) -> Vec<Arc<Pool>> {
        self.pools.load().iter().filter(|pool| *pool.app.group.name == *group).cloned().collect()
    }

    /// App servers of a group that are up, for new clients and requests: the listed ones, or all if none of them is up.
    fn candidates(&self, group: &str) -> Vec<Arc<Pool>> {
        let mut up = self.pools_of(group);
        up.retain(|pool| pool.is_up());
        prefer(&mut up, |pool| pool.app.is_listed());
        up
    }

    /// Waits until an app server of a group is up, while a lost link may still return within the window. `limit` bounds
    /// the wait, and `is_over` ends it.
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
            // App servers may dial in for the first time, or the link of the webhook may open.
            let begun_at = (self.origin() == HubOrigin::DialIn && pools.is_empty()) || self.has_webhook();
            let begun_at = begun_at.then(|| self.naming().registered_at());
            let lost_at = pools.iter().filter_map(|pool| pool.lost_at()).max().max(begun_at);
            lost_at.map(|lost_at| last.min(lost_at + window)).filter(|until| *until > Instant::now())
        };
        self.identity.wait(until).await;
    }

    /// Waits until an app server has an open link. `limit` bounds the wait, and `is_over` ends it.
    pub(crate) async fn wait_until_reached(&self, app: AppServerId, limit: Duration, is_over: impl Fn() -> bool) {
        let last = Instant::now() + limit;
        let is_reached = || self.pool_of(app).is_some_and(|pool| pool.open_links() > 0);
        let until = || (!is_reached() && !is_over()).then_some(last).filter(|until| *until > Instant::now());
        self.identity.wait(until).await;
    }

    /// Home link for a new client connection of a group. App servers take turns by weight, then the links of the chosen
    /// pool. App servers with a disconnected link come last: their answers may wait for that link.
    #[must_use]
    pub(crate) fn choose_home_in(&self, group: &str) -> Option<HomeLink> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mut pools = in_turn(self.candidates(group), turn);
        pools.sort_by_key(|pool| pool.resuming() > 0);
        pools.iter().find_map(|pool| pool.choose_home())
    }

    /// New home link for a client connection of a group after a lost link, preferably at the same app server if it
    /// still has links and belongs to the group.
    #[must_use]
    pub(crate) fn choose_home_near(&self, app: AppServerId, group: &str) -> Option<HomeLink> {
        let own = self.pool_of(app).filter(|pool| *pool.app.group.name == *group);
        own.and_then(|pool| pool.choose_home()).or_else(|| self.choose_home_in(group))
    }

    /// Group of an app server; the default group for an unknown app server.
    pub(crate) fn group_of(&self, app: AppServerId) -> Arc<str> {
        self.pool_of(app).map_or_else(|| DEFAULT_GROUP.into(), |pool| pool.app.group.name.clone())
    }

    #[must_use]
    pub(crate) fn choose_home_at(&self, app: AppServerId) -> Option<HomeLink> {
        self.pool_of(app)?.choose_home()
    }

    pub(crate) fn pool_of(&self, app: AppServerId) -> Option<Arc<Pool>> {
        self.pools.load().iter().find(|pool| pool.app.id == app).cloned()
    }

    /// App servers of a group that are up, in the order to try for an authorization. They take turns.
    pub(crate) fn apps_in_turn(&self, group: &str) -> Vec<Arc<AppServer>> {
        let up = self.candidates(group);
        let turn = self.next_authorizing.fetch_add(1, Ordering::Relaxed);
        in_turn(up, turn).iter().map(|pool| pool.app.clone()).collect()
    }

    /// Pool of an app server that dials in, added for its first link.
    pub(crate) fn pool_or_add(&self, app: AppServerId, begin: impl FnOnce() -> Pool) -> Arc<Pool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool_of(app).unwrap_or_else(|| {
            let pool = Arc::new(begin());
            self.add_pool(pool.clone());
            pool
        })
    }

    /// Removes the pool of an app server without links; `false` if a link has opened, or the pool is removed already.
    pub(crate) fn remove_empty_pool(&self, pool: &Arc<Pool>) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = pool.is_empty() && self.pools.load().iter().any(|known| Arc::ptr_eq(known, pool));
        if is_due {
            self.remove_pool(pool);
        }
        is_due
    }

    pub(crate) fn add_pool(&self, pool: Arc<Pool>) {
        self.pools.rcu(|pools| pools.iter().chain([&pool]).cloned().collect::<Vec<_>>());
    }

    pub(crate) fn remove_pool(&self, pool: &Arc<Pool>) {
        self.pools.rcu(|pools| pools.iter().filter(|known| !Arc::ptr_eq(known, pool)).cloned().collect::<Vec<_>>());
        self.identity.wake_waiters();
    }
}

/// Keeps only the preferred pools, if there are any.
pub(super) fn prefer(pools: &mut Vec<Arc<Pool>>, is_preferred: impl Fn(&Pool) -> bool) {
    if pools.iter().any(|pool| is_preferred(pool)) {
        pools.retain(|pool| is_preferred(pool));
    }
}

/// Pools in the order to try at a turn. In each round, a pool comes first as often as its weight.
fn in_turn(mut pools: Vec<Arc<Pool>>, turn: usize) -> Vec<Arc<Pool>> {
    let weights = || pools.iter().map(|pool| pool.app.weight() as usize);
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
