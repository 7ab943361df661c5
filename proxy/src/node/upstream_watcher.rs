//! Watcher of one upstream: reads its manifest, and keeps a pool per hub to each app server instance there.
//!
//! An instance is given up, and its clients are reassigned, as soon as its crash is certain: another instance answers
//! at an address that never had two at a time, connections are refused for a while and no link is left, or it is silent
//! and there is a [second sign](super::app_instance).
//!
//! An instance that another watcher found at another address, such as one of the other family, is linked by that
//! watcher. This watcher's address is an alternative for those links, and takes over once the pools are retired.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use trunkline_protocol::manifest::Manifest;

use super::app_instance::{AppDoubt, AppInstances, Sighting};
use super::upstream_news::UpstreamNews;
use crate::edge::observer::UpstreamProblems;
use crate::engine::shard::{ShardCommand, Shared};
use crate::engine::upstream::{AppServer, AppTarget, Pool, ServerGroup};
use crate::features::inspection::count_clients;
use crate::ground::net::address::Address;
use crate::ground::net::endpoints::AlternativeEndpoint;
use crate::ground::net::resolver::AddressFamilies;
use crate::node::manifest::{ReadManifestError, read_manifest};

/// Retry interval of the manifest while the app server does not answer or links are missing.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Time for the clients of a removed upstream to be reassigned; longer calls fail.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which an app server that refuses connections and has no links is given up.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);

/// Retry interval of an address that leads to another watcher's app server.
const STANDBY_INTERVAL: Duration = Duration::from_secs(10);

type PoolsByInstance = AppInstances<Vec<Arc<Pool>>>;

/// Whether an upstream should still be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    Listed,
    /// No longer in DNS. It is expected to shut down on its own.
    Vanished,
    /// No longer configured. Its clients should be reassigned.
    Removed,
}

impl Listing {
    /// Waits until an upstream is no longer configured.
    pub(super) async fn removed(listing: &mut watch::Receiver<Self>) {
        Self::until(listing, |listing| listing == Self::Removed).await;
    }

    async fn until(listing: &mut watch::Receiver<Self>, is_met: impl Fn(Self) -> bool) {
        let is_met = listing.wait_for(|listing| is_met(*listing)).await.is_ok();
        if !is_met {
            // The sender is gone, because the node is stopping.
            std::future::pending::<()>().await;
        }
    }
}

/// Address to watch, with state shared with the discovery of its name.
pub(super) struct WatchedAddress {
    pub(super) address: Address,
    pub(super) listing: watch::Receiver<Listing>,
    /// Requests another DNS query.
    pub(super) resolve: Arc<Notify>,
    pub(super) families: Arc<AddressFamilies>,
}

/// Standby at an address that leads to another watcher's app server.
struct Standby {
    pool: Arc<Pool>,
    _alternative: Option<AlternativeEndpoint>,
}

/// Reason why an answering app server gets no links through an address.
enum Unusable {
    Problem(String),
    /// Another watcher has linked the app server, with this pool.
    LinkedBy(Arc<Pool>),
}

/// Watches an upstream of a group until it is no longer listed and has no link or no client left; otherwise forever.
pub(super) async fn watch(
    shared: Arc<Shared>,
    upstreams: Arc<UpstreamProblems>,
    group: Arc<ServerGroup>,
    mut watched: WatchedAddress,
) {
    let (address, changed) = (watched.address.clone(), Arc::new(Notify::new()));
    let mut known = PoolsByInstance::default();
    let mut news = UpstreamNews::new(address.clone(), upstreams);
    let (mut refused_since, mut vanished_since, mut standby) = (None, None::<Instant>, None::<Standby>);
    loop {
        let (terms, mut listing) = (group.terms(), watched.listing.clone());
        let read = tokio::select! {
            biased;
            read = read_manifest(&address, terms.caller(&shared.settings.node)) => read,
            () = vanished(&known, &watched) => {
                news.report_usable();
                return give_up(&shared, (&mut known, &mut news), "it is silent, and its address has left DNS").await;
            }
            // The other watcher's links must not depend on an address that is gone.
            () = Listing::until(&mut listing, |listing| listing != Listing::Listed), if standby.is_some() => {
                standby = None;
                continue;
            }
        };
        // Checked before reporting the problem: a stopping app server is expected to disappear.
        news.update(known.values().flatten());
        match read {
            Ok(manifest) => {
                // The end of a standby withdraws its address, which the next one adds again.
                (refused_since, _) = (None, standby.take());
                address.resolved().into_iter().for_each(|at| watched.families.note_answer(at));
                let recorded =
                    record_answer(&shared, (&group, &address), (&mut known, &mut news), manifest, &changed).await;
                let other = report(&mut news, recorded).filter(|_| *watched.listing.borrow() == Listing::Listed);
                standby = other.map(|pool| Standby::new(pool, &address));
            }
            Err(error) if is_spare(&error, (&known, standby.as_ref()), &watched) => news.report_usable(),
            Err(error) => {
                standby = None;
                give_up_if_certain(&shared, (&mut known, &mut news), &error, &mut refused_since).await;
                let is_one_of_both = is_silence(&error) && watched.families.are_both_listed();
                news.report_unreadable(&error, is_one_of_both);
            }
        }
        let listed = *watched.listing.borrow_and_update();
        if listed == Listing::Removed {
            leave(&shared, &known).await;
            news.report_usable();
            return known.clear().iter().for_each(|pools| retire(&shared, pools));
        }
        let is_vanished = listed == Listing::Vanished && !address.has_alternative();
        vanished_since = is_vanished.then(|| vanished_since.unwrap_or_else(Instant::now));
        // A new address of the name may lead to the same app server.
        let is_gone = vanished_since.is_some_and(|since| since.elapsed() >= RETRY_INTERVAL);
        if is_gone && known.values().flatten().all(|pool| pool.open_links() == 0) {
            info!(upstream = %address, "address removed from DNS, and no longer linked");
            news.report_usable();
            return give_up(&shared, (&mut known, &mut news), "its address has left DNS").await;
        }
        match &standby {
            Some(standby) => standby.wait(&mut watched.listing).await,
            None => changes(&known, &changed, &mut watched).await,
        }
        // Several links are lost together; one request is enough.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reports whether the manifest is usable. Returns the pool of another watcher that has linked the app server.
fn report(news: &mut UpstreamNews, recorded: Result<(), Unusable>) -> Option<Arc<Pool>> {
    match recorded {
        Err(Unusable::Problem(problem)) => news.report_unusable(problem),
        Ok(()) => news.report_usable(),
        Err(Unusable::LinkedBy(pool)) => {
            news.report_usable();
            return Some(pool);
        }
    }
    None
}

/// Waits until the manifest should be read again.
async fn changes(known: &PoolsByInstance, changed: &Notify, watched: &mut WatchedAddress) {
    let WatchedAddress { listing, resolve, .. } = watched;
    let is_whole =
        |pools: &Vec<Arc<Pool>>| !pools.is_empty() && pools.iter().all(|pool| pool.open_links() == pool.size());
    if !known.is_empty() && known.values().all(is_whole) {
        tokio::select! {
            () = changed.notified() => {}
            Ok(()) = listing.changed() => {}
            // Reading the manifest again may provide the second sign.
            () = doubted(known, resolve) => {}
        }
    } else {
        tokio::select! {
            _ = timeout(RETRY_INTERVAL, changed.notified()) => {}
            () = Listing::removed(listing) => {}
        }
    }
}

impl Standby {
    fn new(pool: Arc<Pool>, address: &Address) -> Self {
        let alternative = match &pool.app.target {
            AppTarget::Network(linked) => linked.also_at(address),
            AppTarget::Memory(_) | AppTarget::DialsIn(_) => None,
        };
        Self { pool, _alternative: alternative }
    }

    /// Waits until the address should be tried again.
    async fn wait(&self, listing: &mut watch::Receiver<Listing>) {
        tokio::select! {
            () = self.pool.retired.cancelled() => {}
            Ok(()) = listing.changed() => {}
            () = sleep(STANDBY_INTERVAL) => {}
        }
    }
}

/// Whether a failing address is not a problem: its app server is linked through another address, or its family has
/// never answered.
fn is_spare(
    error: &ReadManifestError,
    (known, standby): (&PoolsByInstance, Option<&Standby>),
    watched: &WatchedAddress,
) -> bool {
    let is_linked = standby.is_some_and(|standby| !standby.pool.retired.is_cancelled());
    let at = watched.address.resolved().filter(|_| known.is_empty());
    is_silence(error) && (is_linked || at.is_some_and(|at| watched.families.only_other_answers(at)))
}

fn is_silence(error: &ReadManifestError) -> bool {
    matches!(error, ReadManifestError::Request(_))
}

fn doubt(known: &PoolsByInstance) -> AppDoubt {
    AppDoubt::of(known.values().flatten().map(|pool| pool.silence()))
}

/// Waits until all instances at the address are silent; requests a DNS query first.
async fn doubted(known: &PoolsByInstance, resolve: &Notify) {
    loop {
        sleep(RETRY_INTERVAL).await;
        match doubt(known) {
            AppDoubt::Answers => {}
            AppDoubt::Suspected => resolve.notify_one(),
            AppDoubt::Doubted => return resolve.notify_one(),
        }
    }
}

/// Waits until all instances at the address are silent and DNS no longer lists it.
async fn vanished(known: &PoolsByInstance, watched: &WatchedAddress) {
    let is_gone = || *watched.listing.borrow() == Listing::Vanished && !watched.address.has_alternative();
    loop {
        doubted(known, &watched.resolve).await;
        if is_gone() {
            // A new address of the name may lead to the same app server.
            sleep(RETRY_INTERVAL).await;
            if is_gone() && doubt(known) == AppDoubt::Doubted {
                return;
            }
        }
    }
}

/// Opens pools to a new instance. It replaces the former one, unless the address has several.
async fn record_answer(
    shared: &Arc<Shared>,
    (group, address): (&Arc<ServerGroup>, &Address),
    (known, news): (&mut PoolsByInstance, &mut UpstreamNews),
    manifest: Manifest,
    changed: &Arc<Notify>,
) -> Result<(), Unusable> {
    let instance = manifest.instance.clone();
    match known.record(&instance) {
        Sighting::Known => return Ok(()),
        Sighting::Successor(before) => {
            for pools in &before {
                news.report_gone(shared, pools, "it has restarted").await;
                retire(shared, pools);
            }
        }
        Sighting::FirstOfSeveral => warn!(
            upstream = %address,
            "several app servers answer at one address, so links reach the right one only by chance: give each its own \
             --upstream, or a DNS name with an address for each"
        ),
        Sighting::OneOfSeveral => {}
    }
    if let Some(pool) = shared.hubs.pool_to(&instance) {
        let other = &pool.app.group.name;
        if *other != group.name {
            // Reported once, like every problem of an upstream, although it is checked repeatedly.
            let problem = format!("it is already in the group {other:?}, and can't be in two groups");
            return Err(Unusable::Problem(problem));
        }
        // At an address with several, the others are kept.
        return if known.is_empty() { Err(Unusable::LinkedBy(pool)) } else { Ok(()) };
    }
    news.report_found(&instance);
    warn_of_webhooks(shared, address, &manifest);
    known.add(instance, open_pools(shared, (AppTarget::Network(address.clone()), group), manifest, changed));
    // Of several instances, those without a link are given up.
    known
        .remove_dead(|pools| pools.iter().any(|pool| pool.open_links() > 0))
        .iter()
        .for_each(|pools| retire(shared, pools));
    Ok(())
}

/// Logs hubs of an app server that get no clients because the operator assigned their paths to webhooks.
fn warn_of_webhooks(shared: &Shared, address: &Address, manifest: &Manifest) {
    for hub in &manifest.hubs {
        if let Some(other) = shared.hubs.find(&hub.path).filter(|known| known.has_webhook()) {
            warn!(
                upstream = %address,
                hub = %hub.name,
                path = %hub.path,
                "clients of this path are assigned to the webhook of {:?} (--upstream-webhook), not to the app server",
                other.name()
            );
        }
    }
}

/// Gives up all instances once connections were refused for a while and no link is left.
async fn give_up_if_certain(
    shared: &Shared,
    (known, news): (&mut PoolsByInstance, &mut UpstreamNews),
    error: &ReadManifestError,
    refused_since: &mut Option<Instant>,
) {
    if !error.is_refused() {
        *refused_since = None;
        return;
    }
    let since = *refused_since.get_or_insert_with(Instant::now);
    // An app server that has stopped listening may still be handing over its clients.
    let is_linked = known.values().flatten().any(|pool| pool.open_links() > 0);
    let is_certain = !is_linked && since.elapsed() >= REFUSED_TIMEOUT;
    if known.is_empty() || !(is_certain || doubt(known) == AppDoubt::Doubted) {
        return;
    }
    give_up(shared, (known, news), "nothing listens at its address").await;
}

async fn give_up(shared: &Shared, (known, news): (&mut PoolsByInstance, &mut UpstreamNews), reason: &str) {
    for pools in known.clear() {
        news.report_gone(shared, &pools, reason).await;
        retire(shared, &pools);
    }
}

/// Registers the hubs of an app server and opens a pool of links for each.
pub(crate) fn open_pools(
    shared: &Arc<Shared>,
    (target, group): (AppTarget, &Arc<ServerGroup>),
    manifest: Manifest,
    changed: &Arc<Notify>,
) -> Vec<Arc<Pool>> {
    let id = shared.hubs.number(&manifest.instance);
    let (instance, name) = (manifest.instance, manifest.name);
    let app = Arc::new(AppServer { id, instance, name, target, group: group.clone() });
    let pool_size = group.terms().pool_size;
    let pools = manifest.hubs.into_iter().enumerate().map(|(index, mut settings)| {
        // The proxy's flags are upper bounds for the hub's settings.
        settings.message_max_bytes = settings.message_max_bytes.min(shared.settings.message_max_bytes);
        let presence = settings.presence;
        let hub = shared.hubs.register(settings, group);
        let pool = Pool::new(hub.identity.clone(), app.clone(), pool_size, changed.clone());
        let pool = Arc::new(pool.with_presence(presence));
        hub.add_pool(pool.clone());
        // Each hub starts at a different shard.
        shared.keep_links(&pool, index);
        pool
    });
    pools.collect()
}

/// Reassigns the clients of a removed upstream, and waits until none is left.
async fn leave(shared: &Arc<Shared>, known: &PoolsByInstance) {
    let pools: Vec<_> = known.values().flatten().filter(|pool| pool.begin_drain()).cloned().collect();
    for pool in &pools {
        let (hub, app) = (pool.hub.index, pool.app.id);
        for shard in shared.shards() {
            shard.give(vec![ShardCommand::AppShuttingDown { hub, app }], 0).await;
        }
    }
    let until = Instant::now() + REMOVAL_TIMEOUT;
    while Instant::now() < until && count_clients(shared, &pools).await > 0 {
        sleep(RETRY_INTERVAL).await;
    }
}

fn retire(shared: &Shared, pools: &[Arc<Pool>]) {
    for pool in pools {
        if let Some(hub) = shared.hubs.of_pool(pool) {
            hub.remove_pool(pool);
        }
        pool.retire();
    }
}
