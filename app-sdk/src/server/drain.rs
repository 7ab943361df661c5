//! Drain: all connections go on at other app servers before this one stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server_core::ServerCore;
use crate::dispatch::Dispatcher;
use crate::sync::read;

/// Time in which proxies ask for their connections; one that has not by then can't give them to others. A service moves
/// its clients one by one, so it begins anew whenever one has left, or a call has ended.
const REQUEST_WINDOW: Duration = Duration::from_secs(1);

/// Time for methods that have waited for clients in vain to answer, after the time for calls is up.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval of the checks whether all connections have left.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

impl ServerCore {
    /// Hands all connections over to other app servers, as far as proxies take them. Meanwhile clients are read on that have
    /// something to answer, or to upload. When the time is up, what waits for them fails, and shortly after that the rest is handed
    /// over as it is.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        // Only over a network are there others.
        let Some(ready) = self.ready.get() else { return };
        let hubs: Vec<Arc<Dispatcher>> = read(&self.hubs).values().cloned().collect();
        hubs.iter().for_each(|hub| hub.core.announce_shutdown());
        for pool in self.pools.get().into_iter().flatten() {
            self.tasks.spawn(Arc::clone(pool).leave());
        }
        let started = Instant::now();
        let (mut changed, mut last) = (started, (usize::MAX, 0));
        let mut deadline = ready.shutdown_timeout;
        let mut has_given_up = false;
        loop {
            hubs.iter().for_each(Dispatcher::advance_handovers);
            let (here, moving) = hubs
                .iter()
                .map(|hub| hub.count_connections())
                .fold((0, 0), |(all, some), (here, moving)| (all + here, some + moving));
            if (here, moving) != last {
                (changed, last) = (Instant::now(), (here, moving));
            }
            if here == 0 || (moving == 0 && changed.elapsed() >= REQUEST_WINDOW.min(ready.shutdown_timeout)) {
                return;
            }
            if started.elapsed() >= deadline {
                // Not the first one alone: all of them give up.
                if !has_given_up && hubs.iter().filter(|hub| hub.give_up_waits()).count() > 0 {
                    tracing::warn!("methods still wait for clients; they get an error");
                    (deadline, has_given_up) = (deadline + LAST_ANSWERS_TIMEOUT, true);
                    continue;
                }
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
