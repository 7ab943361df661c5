//! Sweep of hubs and app servers that nobody names any more: a release has renamed or dropped hubs, or app servers have
//! started again and dial in under other ids.
//!
//! Level-triggered: once a second it looks at what is linked. A hub is forgotten when no app server that is linked has
//! named it for `--hold-timeout` and none of its clients is left; a restart or a lost link ends before that. A hub that
//! clients have named, because a webhook serves any name, is forgotten when it has had none for that time. Its index is
//! used again when nothing in any shard goes by it: each is asked behind all that it was told before. An app server is
//! forgotten when it has had neither a pool of links nor a client for that time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use crate::shard::{ShardState, Shared};
use crate::upstream::HubIndex;

/// Interval of the sweep.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sweeps as long as the node runs.
pub(crate) async fn run(shared: Arc<Shared>) {
    let hold = Duration::from_secs(shared.settings.rehoming.hold_timeout_s.into());
    // A link that may be resumed is no end of an app server.
    let limit = hold.max(Duration::from_millis(shared.settings.links.resume_window_ms));
    loop {
        sleep(INTERVAL).await;
        forget_unnamed(&shared, limit).await;
        release_unheld(&shared).await;
        forget_app_servers(&shared, limit).await;
    }
}

async fn forget_unnamed(shared: &Shared, limit: Duration) {
    for hub in shared.hubs.unnamed_for(limit, |hub| shared.webhooks.has_clients(hub)) {
        let is_used = is_any(shared, hub.index(), |state, hub| state.core.has_clients_of(hub)).await;
        if !is_used && shared.hubs.forget(&hub, limit) {
            let seconds = limit.as_secs();
            info!(hub = hub.name(), seconds, "a hub is forgotten: nobody has named it for this long");
        }
    }
}

async fn release_unheld(shared: &Shared) {
    for index in shared.hubs.unheld() {
        let is_told = shared.fleet.interest.as_ref().is_some_and(|interest| !interest.map(index).is_empty());
        if !is_told && !is_any(shared, index, ShardState::uses_hub).await {
            shared.hubs.release(index);
        }
    }
}

async fn forget_app_servers(shared: &Shared, limit: Duration) {
    if shared.hubs.unlinked_app_servers().is_empty() {
        return;
    }
    let mut clients_of = HashSet::new();
    for shard in shared.shards() {
        let homes = |state: &mut ShardState| state.core.homes_of_clients().collect::<HashSet<_>>();
        // One that does not answer may have clients of any.
        let Some(homes) = shard.inspect(homes).await else { return };
        clients_of.extend(homes);
    }
    let count = shared.hubs.forget_app_servers(&clients_of, limit);
    if count > 0 {
        debug!(count, seconds = limit.as_secs(), "app servers are forgotten: none of them was linked for this long");
    }
}

/// Whether something is so of a hub at any shard; yes if a shard does not answer.
async fn is_any(shared: &Shared, hub: HubIndex, is_so: fn(&ShardState, HubIndex) -> bool) -> bool {
    for shard in shared.shards() {
        if shard.inspect(move |state| is_so(state, hub)).await.unwrap_or(true) {
            return true;
        }
    }
    false
}
