//! Keeper of a session: the task that ends it when its proxy is silent or gone, or the app server stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_link::{LinkEnd, StopReason, wait_for_verdict};
use trunkline_protocol::service::SessionEvent;

use super::proxy_log::end_of_connections;
use super::session::LinkSession;
use super::slots::Slots;

/// Time for which a proxy that is said to have crashed may show that it lives. It was refused for 2 s by then, and one
/// that lives dials again within 2 s.
const DOUBTED_FOR: Duration = Duration::from_secs(1);

/// Counts the silence of the proxy, and ends the session when that has lasted too long, or with the app server.
///
/// Nothing tells a proxy that has started again from a second one of its name but that the former is silent: a proxy
/// that lives pings several times within the default window, and one that was cut off for its window has given the
/// session up.
pub(super) async fn keep(session: Arc<LinkSession>, slots: Arc<Slots>) {
    let mut doubted_at = None;
    loop {
        let why = tokio::select! {
            () = session.over.cancelled() => return,
            () = session.told_crashed.notified() => {
                // sleep: a proxy that lives has a socket again by the end of it
                sleep(DOUBTED_FOR).await;
                if slots.end_crashed(&session) {
                    return;
                }
                continue;
            }
            () = session.shutdown.cancelled() => StopReason::Shutdown,
            () = session.doubted.notified(), if doubted_at.is_none() => {
                doubted_at = Some(Instant::now());
                continue;
            }
            () = session.judge(doubted_at) => {
                if doubted_at.take().is_some_and(|since| session.node.heard_at() > since) {
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
        // Unless it was resumed in this moment: then the silence has an end, or the new socket goes, too.
        slots.end_detached(&session, &end_of_connections(&LinkEnd::from(why)));
    }
}
