//! Watch one upstream: read its manifest, and keep a pool per hub to the instance that answers there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use trunkline_protocol::manifest::Manifest;

use crate::admin::Upstreams;
use crate::config::Address;
use crate::link::{AppServer, Pool, Reach, read_manifest};
use crate::shard::{Parcel, Shared};

/// How often an app server is asked that doesn't answer, or not with all its links.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// An instance, and our pools to it.
struct Known {
    instance: String,
    pools: Vec<Arc<Pool>>,
}

/// Watches an upstream for ever.
pub(super) async fn watch(shared: Arc<Shared>, upstreams: Arc<Upstreams>, address: Address) {
    let shown = address.to_string();
    let changed = Arc::new(Notify::new());
    let mut known: Option<Known> = None;
    let mut last_problem = None;
    loop {
        match read_manifest(&address, shared.caller()).await {
            Ok(manifest) => {
                upstreams.tell(&shown, None);
                last_problem = None;
                if known.as_ref().is_none_or(|known| known.instance != manifest.instance) {
                    known.take().iter().for_each(retire);
                    known = Some(adopt(&shared, &address, manifest, &changed));
                }
            }
            Err(error) => {
                let problem = error.to_string();
                upstreams.tell(&shown, Some(problem.clone()));
                // Once, and again only when something else is wrong.
                if last_problem.as_ref() != Some(&problem) {
                    warn!(upstream = %address, %problem, "waiting for the app server");
                }
                last_problem = Some(problem);
            }
        }
        if known.as_ref().is_some_and(|known| known.pools.iter().all(|pool| pool.open() == pool.size())) {
            changed.notified().await;
        } else {
            drop(timeout(ASK_AGAIN, changed.notified()).await);
        }
        // Several links are lost at once: one question will do.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Gives every hub of the manifest a pool, and every link to a shard to keep.
fn adopt(shared: &Arc<Shared>, address: &Address, manifest: Manifest, changed: &Arc<Notify>) -> Known {
    let reach = Reach::Network(address.clone());
    info!(upstream = %address, app = %manifest.name, instance = %manifest.instance, hubs = manifest.hubs.len(), "app server found");
    let instance = manifest.instance.clone();
    Known { instance, pools: open_pools(shared, reach, manifest, changed) }
}

/// Learns the hubs of an app server and begins to keep links to it.
pub(super) fn open_pools(
    shared: &Arc<Shared>,
    reach: Reach,
    manifest: Manifest,
    changed: &Arc<Notify>,
) -> Vec<Arc<Pool>> {
    let (id, instance, name) = (shared.hubs.next_app_server(), manifest.instance, manifest.name);
    let app = Arc::new(AppServer { id, instance, name, reach });
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

fn retire(known: &Known) {
    for pool in &known.pools {
        pool.hub().remove_pool(pool);
        pool.retire();
    }
}
