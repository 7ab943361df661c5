//! Drain: moves all connections to other app servers before this one stops.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::server_core::ServerCore;
use crate::dispatch::Dispatcher;
use crate::hub_core::{announce_shutdown, fence};
use crate::sync::read_lock;

/// Time for proxies to request their connections; later ones can't be moved. Because a service moves its clients one by
/// one, the time restarts whenever a client has left or a call has ended.
const REQUEST_WINDOW: Duration = Duration::from_secs(1);

/// Time for methods to respond after their wait for clients has failed at the call timeout.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for `on_leaving` of clients with abandoned methods.
const LATE_LEAVING_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after `shutdown_timeout` until a stop is complete, even if methods still run. Supervisors must allow for it.
const STOP_REST: Duration = Duration::from_secs(5);

const CHECK_INTERVAL: Duration = Duration::from_millis(10);

impl ServerCore {
    /// Latest end of a stop that has `started`, even if methods still run.
    pub(super) fn stop_deadline(&self, started: Instant) -> Instant {
        started + self.ready.get().map_or(Duration::ZERO, |ready| ready.shutdown_timeout) + STOP_REST
    }

    /// Hands all connections over to other app servers, as far as proxies accept them. Meanwhile, clients with pending
    /// results or uploads are still read. At the timeout, waits for these clients fail; shortly afterwards the
    /// remaining connections are handed over unchanged.
    pub(super) async fn drain(&self, started: Instant) {
        self.draining.cancel();
        let hubs = self.hubs();
        hubs.iter().filter_map(|hub| hub.presence.as_ref()).for_each(|presence| presence.stop());
        // Other app servers exist only with a network.
        let Some(ready) = self.ready.get() else { return };
        let raw: Vec<_> = read_lock(&self.raw).values().cloned().collect();
        let hubs: Vec<_> = hubs.into_iter().chain(raw).filter(|hub| hub.is_movable()).collect();
        for pool in self.pools.get().into_iter().flatten() {
            self.tasks.spawn(Arc::clone(pool).leave());
        }
        let requested = join_all(hubs.iter().map(|hub| announce_shutdown(&hub.core.outbound, &hub.core.acks)));
        reassign_all(&hubs, ready.shutdown_timeout, started, requested).await;
        // A proxy that notices the end of one link before reading another would fail calls with unread results.
        let left = ready.shutdown_timeout.saturating_sub(started.elapsed()).max(LAST_ANSWERS_TIMEOUT);
        let fences = join_all(hubs.iter().map(|hub| fence(&hub.core.outbound, &hub.core.acks)));
        if timeout(left, fences).await.is_err() {
            tracing::warn!("a proxy did not acknowledge the last answers");
        }
    }
}

/// Hands over connections without running calls, until none is left or the timeout expires. Ends only after proxies
/// have `requested` them, because more may be in flight.
async fn reassign_all(hubs: &[Arc<Dispatcher>], shutdown_timeout: Duration, started: Instant, requested: impl Future) {
    let (mut changed, mut last) = (started, (usize::MAX, 0));
    let mut deadline = shutdown_timeout;
    let (mut is_requested, mut has_given_up) = (false, false);
    let mut requested = pin!(requested);
    loop {
        hubs.iter().for_each(|hub| hub.reassignments.advance());
        let (here, moving) = hubs
            .iter()
            .map(|hub| hub.reassignments.count())
            .fold((0, 0), |(all, some), (here, moving)| (all + here, some + moving));
        if (here, moving) != last {
            (changed, last) = (Instant::now(), (here, moving));
        }
        let is_over = || here == 0 || (moving == 0 && changed.elapsed() >= REQUEST_WINDOW.min(shutdown_timeout));
        if is_requested && is_over() {
            return;
        }
        if started.elapsed() >= deadline {
            // Count, because every hub must give up, not only the first.
            if !has_given_up && hubs.iter().filter(|hub| hub.reassignments.give_up_waits()).count() > 0 {
                tracing::warn!("methods still wait for clients; they get an error");
                (deadline, has_given_up) = (deadline + LAST_ANSWERS_TIMEOUT, true);
                continue;
            }
            if moving > 0 {
                let methods = hubs.iter().map(|hub| hub.running_methods()).filter(|methods| !methods.is_empty());
                let methods = methods.collect::<Vec<_>>().join(", ");
                tracing::warn!(connections = moving, methods, "methods are still running; their callers get an error");
            }
            join_all(hubs.iter().map(|hub| hub.reassign_remaining(LATE_LEAVING_TIMEOUT))).await;
            return;
        }
        tokio::select! {
            _ = &mut requested, if !is_requested => is_requested = true,
            () = sleep(CHECK_INTERVAL) => {}
        }
    }
}
