//! Leaving: all connections go on at other app servers before this one stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Core;
use crate::dispatch::HubAtWork;
use crate::sync::read;

/// A proxy that has not asked for its connections by then can't give them to others.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// How often it looks whether all have left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Core {
    /// Hands all connections over to other app servers, as far as proxies take them.
    pub(super) async fn leave(&self) {
        self.leaving.cancel();
        // Only over a network are there others.
        let Some(ready) = self.ready.get() else { return };
        let hubs: Vec<Arc<HubAtWork>> = read(&self.hubs).values().cloned().collect();
        hubs.iter().for_each(|hub| hub.down.announce_leaving());
        let started = Instant::now();
        loop {
            let (here, moving) = hubs
                .iter()
                .map(|hub| hub.count_moving())
                .fold((0, 0), |(all, some), (here, moving)| (all + here, some + moving));
            if here == 0 || (moving == 0 && started.elapsed() >= ASKED_WITHIN.min(ready.shutdown_timeout)) {
                return;
            }
            if started.elapsed() >= ready.shutdown_timeout {
                tracing::warn!(connections = moving, "methods are still running; their callers get an error");
                for hub in &hubs {
                    hub.hand_over_the_rest().await;
                }
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
