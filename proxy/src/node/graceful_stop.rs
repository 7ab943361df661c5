//! Steps of a graceful shutdown shared by standalone and embedded nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::edge::rest::Rest;
use crate::engine::shard::Shared;
use crate::engine::upstream::Pool;
use crate::features::inspection::Stragglers;
use crate::features::webhook::{HubConnection, Reported, Webhooks};

/// Time for links to send queued frames during shutdown.
const LINKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for other nodes to receive the ends that this node has reported to back ends.
const ENDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for other nodes to take the records of this node.
pub(super) const RECORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a shard to report its remaining clients.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_millis(200);

/// Time for requests of back ends in progress.
const REQUESTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Poll interval of a stopping node.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Waits until a condition of a stopping node holds.
pub(super) async fn poll_until(is_done: impl Fn() -> bool) {
    while !is_done() {
        sleep(STOP_POLL).await;
    }
}

/// Waits until other nodes have received the ends that this node has reported to back ends. Otherwise they would report
/// them again.
pub(super) async fn share_ends(webhooks: &Webhooks) {
    if let Some(connections) = HubConnection::presence(webhooks) {
        drop(timeout(ENDS_TIMEOUT, poll_until(|| connections.log.has_sent_ends())).await);
    }
}

/// Waits for requests in progress, and for those of connections that wait to be accepted when the listeners close.
pub(super) async fn finish_requests(shared: &Shared, rest: Option<&Rest>) {
    let limits = &shared.limits;
    let is_idle = || limits.listeners.used() == 0 && limits.open.used() == 0 && rest.is_none_or(Rest::is_idle);
    drop(timeout(REQUESTS_TIMEOUT, poll_until(is_idle)).await);
}

/// Collects the remaining clients; a hanging shard reports none.
pub(super) async fn stragglers(shared: &Shared) -> Stragglers {
    let mut all = Stragglers::default();
    for shard in shared.shards() {
        if let Ok(Some(found)) = timeout(STRAGGLERS_TIMEOUT, shard.inspect(|state| Stragglers::at_shard(state))).await {
            all.merge(found);
        }
    }
    all
}

/// Closes the links of all pools after sending queued frames.
pub(super) async fn close_links(pools: &[Arc<Pool>]) {
    pools.iter().for_each(|pool| pool.retire());
    drop(timeout(LINKS_TIMEOUT, poll_until(|| pools.iter().all(|pool| pool.open_links() == 0))).await);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use tokio::time::Instant;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::engine::shard::ShardSender;
    use crate::ground::config::Settings;

    #[tokio::test(start_paused = true)]
    async fn requests_are_finished_once_no_listener_may_accept_a_socket_and_no_socket_is_open() {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let shared = Shared::alone(Settings::embedded(keys, Vec::new(), true), vec![ShardSender::new().0]);
        let listening = shared.limits.listeners.charge(1);
        let mut finished = pin!(finish_requests(&shared, None));
        assert!(finished.as_mut().now_or_never().is_none(), "a socket may wait at the listener");
        let socket = shared.limits.open.charge(1);
        drop(listening);
        // sleep: paused time passes.
        sleep(STOP_POLL * 2).await;
        assert!(finished.as_mut().now_or_never().is_none(), "its request is in progress");
        drop(socket);
        let begun = Instant::now();
        finished.await;
        assert!(begun.elapsed() < REQUESTS_TIMEOUT);
    }
}
