//! Warning about an app server lost without a farewell: hubs without another app server, and the number of
//! clients that move or wait.

use std::sync::Arc;

use tracing::warn;

use crate::engine::shard::{SetName, Shared};
use crate::engine::upstream::Pool;

/// Maximum number of hubs named in a log line.
const HUBS_SHOWN_MAX: usize = 20;

/// Logs the loss of the app server of these pools. Called before its sessions end, while its clients are still
/// counted.
pub(crate) async fn warn_of_lost_app_server(shared: &Shared, pools: &[Arc<Pool>], reason: &str) {
    let Some(app) = pools.first().map(|pool| &pool.app) else { return };
    let (served, unserved): (Vec<_>, Vec<_>) =
        pools.iter().cloned().partition(|pool| shared.hubs.of_pool(pool).is_some_and(|hub| hub.is_served_beside(pool)));
    let moved_clients = count_clients(shared, &served).await;
    if unserved.is_empty() {
        return warn!(
            app = %app.name,
            at = %app.target,
            hubs = hub_names(&served),
            reason,
            moved_clients,
            "app server lost"
        );
    }
    let (waiting_clients, hubs) = (count_of_hubs(shared, &unserved).await, hub_names(&unserved));
    let hold_s = shared.settings.rehoming.hold_timeout_s;
    warn!(
        app = %app.name, at = %app.target, hubs, reason, waiting_clients, hold_s, moved_clients,
        "app server lost: no other app server has these hubs"
    );
}

/// Number of clients of the hubs of these pools. After earlier losses of links they have no app server.
async fn count_of_hubs(shared: &Shared, pools: &[Arc<Pool>]) -> usize {
    let mut count = 0;
    for pool in pools {
        let hub = pool.hub.index;
        for shard in shared.shards() {
            let clients = shard.inspect(move |state| state.core.connections.members(hub, SetName::Hub).len());
            count += clients.await.unwrap_or_default();
        }
    }
    count
}

/// Number of clients assigned to these pools, as primary or secondary.
pub(crate) async fn count_clients(shared: &Shared, pools: &[Arc<Pool>]) -> usize {
    let mut count = 0;
    for pool in pools {
        let (hub, app) = (pool.hub.index, pool.app.id);
        for shard in shared.shards() {
            count += shard.inspect(move |state| state.core.connections.count_at(hub, app)).await.unwrap_or_default();
        }
    }
    count
}

pub(crate) fn hub_names(pools: &[Arc<Pool>]) -> String {
    let mut names: Vec<_> = pools.iter().map(|pool| pool.hub.name()).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(HUBS_SHOWN_MAX);
    names.truncate(HUBS_SHOWN_MAX);
    let shown = names.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
