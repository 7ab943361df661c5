//! Steps of a graceful stop that nodes and embedded nodes share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::shard::{Shared, Stragglers};
use crate::upstream::Pool;

/// Time that links have to send what is queued when the node stops.
const LINKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that a shard has to tell of its clients that have not left.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_millis(200);

/// Interval at which a stopping node checks whether all clients have disconnected.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Waits until a condition of a stopping node holds.
pub(super) async fn poll_until(is_done: impl Fn() -> bool) {
    while !is_done() {
        sleep(STOP_POLL).await;
    }
}

/// Collects the clients that have not left; a shard that hangs tells of none.
pub(super) async fn stragglers(shared: &Shared) -> Stragglers {
    let mut all = Stragglers::default();
    for shard in shared.shards() {
        if let Ok(Some(found)) = timeout(STRAGGLERS_TIMEOUT, shard.inspect(|state| Stragglers::of(&state.core))).await {
            all.merge(found);
        }
    }
    all
}

/// Closes the links of all pools, once they have sent what is queued.
pub(super) async fn close_links(pools: &[Arc<Pool>]) {
    pools.iter().for_each(|pool| pool.retire());
    drop(timeout(LINKS_TIMEOUT, poll_until(|| pools.iter().all(|pool| pool.open() == 0))).await);
}
