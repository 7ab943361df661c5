//! Drain: all connections go on at other app servers before this one stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server_core::ServerCore;
use crate::dispatch::Dispatcher;
use crate::sync::read;

/// Time in which proxies ask for their connections; one that has not by then can't give them to others.
const REQUEST_WINDOW: Duration = Duration::from_secs(1);

/// Interval of the checks whether all connections have left.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

impl ServerCore {
    /// Hands all connections over to other app servers, as far as proxies take them.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        // Only over a network are there others.
        let Some(ready) = self.ready.get() else { return };
        let hubs: Vec<Arc<Dispatcher>> = read(&self.hubs).values().cloned().collect();
        hubs.iter().for_each(|hub| hub.core.announce_shutdown());
        let started = Instant::now();
        loop {
            let (here, moving) = hubs
                .iter()
                .map(|hub| hub.count_connections())
                .fold((0, 0), |(all, some), (here, moving)| (all + here, some + moving));
            if here == 0 || (moving == 0 && started.elapsed() >= REQUEST_WINDOW.min(ready.shutdown_timeout)) {
                return;
            }
            if started.elapsed() >= ready.shutdown_timeout {
                tracing::warn!(connections = moving, "methods are still running; their callers get an error");
                for hub in &hubs {
                    hub.hand_over_remaining().await;
                }
                return;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }
}
