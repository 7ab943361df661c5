//! Watch one upstream: read its manifest, and keep a pool per hub to each instance that answers there.
//!
//! An instance is given up, and its clients get another home, as soon as its crash is certain: another one answers
//! where never two have lived at once, or nobody listens there for a while and none of its links is left.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use trunkline_protocol::manifest::Manifest;

use super::instances::{Instances, Met};
use crate::admin::Upstreams;
use crate::config::Address;
use crate::shard::{Parcel, Shared};
use crate::upstream::{AppServer, AppTarget, Pool, ReadManifestError, read_manifest};

/// How often an app server is asked that doesn't answer, or not with all its links.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Where nobody listens for this long, nobody is left.
const CERTAIN_AFTER: Duration = Duration::from_secs(2);

type Known = Instances<Vec<Arc<Pool>>>;

/// Watches an upstream: for ever, or until it `is_listed` no more and no link to it is left.
pub(super) async fn watch(
    shared: Arc<Shared>,
    upstreams: Arc<Upstreams>,
    address: Address,
    mut is_listed: watch::Receiver<bool>,
) {
    let shown = address.to_string();
    let changed = Arc::new(Notify::new());
    let mut known = Known::default();
    let mut last_problem = None;
    let mut refused_since = None;
    loop {
        match read_manifest(&address, shared.caller()).await {
            Ok(manifest) => {
                upstreams.tell(&shown, None);
                (last_problem, refused_since) = (None, None);
                meet(&shared, &address, &mut known, manifest, &changed);
            }
            Err(error) => {
                give_up_if_certain(&address, &mut known, &error, &mut refused_since);
                let problem = error.to_string();
                upstreams.tell(&shown, Some(problem.clone()));
                // Once, and again only when something else is wrong.
                if last_problem.as_ref() != Some(&problem) {
                    warn!(upstream = %address, %problem, "waiting for the app server");
                }
                last_problem = Some(problem);
            }
        }
        if !*is_listed.borrow_and_update() && known.all().flatten().all(|pool| pool.open() == 0) {
            info!(upstream = %address, "the address has vanished, and nobody is linked there any more");
            upstreams.tell(&shown, None);
            return known.clear().iter().for_each(|pools| retire(pools));
        }
        let is_whole = |pools: &Vec<Arc<Pool>>| pools.iter().all(|pool| pool.open() == pool.size());
        if !known.is_empty() && known.all().all(is_whole) {
            tokio::select! {
                () = changed.notified() => {}
                Ok(()) = is_listed.changed() => {}
            }
        } else {
            drop(timeout(ASK_AGAIN, changed.notified()).await);
        }
        // Several links are lost at once: one question will do.
        sleep(Duration::from_millis(20)).await;
    }
}

/// An instance answers. Whoever was there before is gone, unless several live behind this address.
fn meet(shared: &Arc<Shared>, address: &Address, known: &mut Known, manifest: Manifest, changed: &Arc<Notify>) {
    let instance = manifest.instance.clone();
    match known.meet(&instance) {
        Met::Known => return,
        Met::Next(before) => before.iter().for_each(|pools| retire(pools)),
        Met::Several => warn!(
            upstream = %address,
            "several app servers answer at one address, so links find theirs only by chance: give each its own \
             --upstream, or a DNS name with an address for each"
        ),
        Met::Another => {}
    }
    info!(upstream = %address, app = %manifest.name, %instance, hubs = manifest.hubs.len(), "app server found");
    known.add(instance, open_pools(shared, AppTarget::Network(address.clone()), manifest, changed));
    // Where several live, those without any link for long are given up.
    known.forget(|pools| pools.iter().any(|pool| pool.open() > 0)).iter().for_each(|pools| retire(pools));
}

/// Nobody listens: after a while without any link, it is certain that nobody is left.
fn give_up_if_certain(
    address: &Address,
    known: &mut Known,
    error: &ReadManifestError,
    refused_since: &mut Option<Instant>,
) {
    if !error.is_refused() {
        *refused_since = None;
        return;
    }
    let since = *refused_since.get_or_insert_with(Instant::now);
    // One that has stopped listening may still be handing its clients over.
    let is_linked = known.all().flatten().any(|pool| pool.open() > 0);
    if known.is_empty() || is_linked || since.elapsed() < CERTAIN_AFTER {
        return;
    }
    warn!(upstream = %address, "the app server is gone: its clients get another one");
    known.clear().iter().for_each(|pools| retire(pools));
}

/// Learns the hubs of an app server and begins to keep links to it.
pub(crate) fn open_pools(
    shared: &Arc<Shared>,
    target: AppTarget,
    manifest: Manifest,
    changed: &Arc<Notify>,
) -> Vec<Arc<Pool>> {
    let (id, instance, name) = (shared.hubs.number(&manifest.instance), manifest.instance, manifest.name);
    let app = Arc::new(AppServer { id, instance, name, target });
    let pools = manifest.hubs.into_iter().enumerate().map(|(place, mut settings)| {
        // The flags of the proxy are upper bounds to what a hub asks for.
        settings.message_max_bytes = settings.message_max_bytes.min(shared.settings.message_max_bytes);
        let hub = shared.hubs.learn(settings);
        let pool = Arc::new(Pool::new(hub.clone(), app.clone(), shared.settings.pool_size, changed.clone()));
        hub.add_pool(pool.clone());
        spread(shared, &pool, place);
        pool
    });
    pools.collect()
}

/// Gives the links of a pool to the shards in turn; each hub begins with another one.
fn spread(shared: &Shared, pool: &Arc<Pool>, start: usize) {
    let shards = shared.shards().iter().cycle().skip(start % shared.shards().len().max(1));
    for (slot, shard) in (0..pool.size()).zip(shards) {
        shard.put(Parcel::KeepLink(pool.clone(), slot));
    }
}

fn retire(pools: &[Arc<Pool>]) {
    for pool in pools {
        pool.hub().remove_pool(pool);
        pool.retire();
    }
}
