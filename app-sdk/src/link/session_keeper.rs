//! Task that ends a session when its proxy is silent or gone, or when the app server stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_link::{LinkEnd, StopReason, wait_for_verdict};
use trunkline_protocol::service::SessionEvent;

use super::proxy_log::end_of_connections;
use super::session::LinkSession;
use super::slots::Slots;

/// Time for a proxy reported as crashed to prove that it is alive. It has been refused for 2 s, and a live proxy dials
/// again within 2 s.
const DOUBTED_FOR: Duration = Duration::from_secs(1);

/// Monitors the silence of the proxy, and ends the session when it is silent too long or when the app server stops.
///
/// Only silence distinguishes a restarted proxy from a second one with its name: a live proxy sends several pings
/// within the default window, and a proxy cut off for its window has given up the session.
pub(super) async fn keep(session: Arc<LinkSession>, slots: Arc<Slots>) {
    let mut suspected_at = None;
    loop {
        let why = tokio::select! {
            () = session.over.cancelled() => return,
            () = session.reported_crashed.notified() => {
                // sleep: a live proxy has a new socket by the end of it
                sleep(DOUBTED_FOR).await;
                if slots.end_crashed(&session) {
                    return;
                }
                continue;
            }
            () = session.shutdown.cancelled() => StopReason::Shutdown,
            () = session.doubted.notified(), if suspected_at.is_none() => {
                suspected_at = Some(Instant::now());
                continue;
            }
            () = session.suspicion_elapsed(suspected_at) => {
                if suspected_at.take().is_some_and(|since| session.node.received_at() > since) {
                    slots.note_shared_name(&session.key);
                    continue;
                }
                StopReason::Replaced
            }
            verdict = wait_for_verdict(&session.outbox, session.clock, |_| {}) => match verdict {
                None => return,
                Some(SessionEvent::PeerSilent) => {
                    session.stop(StopReason::Silent);
                    continue;
                }
                Some(SessionEvent::End(cause)) => StopReason::Over(cause),
            }
        };
        session.stop(why);
        session.detached().await;
        // Unless the session was resumed just now: then the silence is over, or the new socket is stopped too.
        slots.end_detached(&session, &end_of_connections(&LinkEnd::from(why)));
    }
}
