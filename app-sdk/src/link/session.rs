//! The session of one slot: what lives on while its socket is away.

use std::future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use trunkline_link::{LinkClock, LinkEnd, LinkOutbox, SocketStop, StopReason, wait_for_verdict};
use trunkline_protocol::service::{Attachment, Incoming, Role, SessionEndReason, SessionEvent};

use super::proxy_log::ProxyLog;
use super::session_policy::end_of_connections;
use super::{Service, SlotKey, Slots};
use crate::connection::{Connection, ConnectionClose, DueQueue, LinkId};
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::sync::lock;

/// Time for which a proxy that is said to have crashed may show that it lives. It was refused for 2 s by then, and one that
/// lives dials again within 2 s.
const DOUBTED_FOR: Duration = Duration::from_secs(1);

/// A session, from its first upgrade until it is over.
pub(crate) struct LinkSession {
    /// The home link of its connections.
    pub(super) id: LinkId,
    pub(super) key: SlotKey,
    /// Service that was dialled; `None` for a proxy.
    pub(super) service: Option<Service>,
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) node: Arc<Node>,
    pub(super) outbox: Arc<LinkOutbox>,
    /// The numbering of what comes in, while no socket has it.
    pub(super) incoming: Mutex<Incoming>,
    /// Connections that it has brought work for.
    pub(super) due: Arc<DueQueue<Arc<Connection>>>,
    pub(super) shutdown: CancellationToken,
    /// Ends the present socket.
    pub(super) socket: Mutex<SocketStop>,
    pub(super) detached: Notify,
    /// Another start of a proxy of this name is there: this one has to be heard soon.
    pub(super) doubted: Notify,
    /// Time in which a proxy that lives is heard.
    pub(super) patience: Duration,
    /// Notified when another proxy says that this one has crashed.
    pub(super) told_crashed: Notify,
    /// Fires when it is over.
    pub(super) over: CancellationToken,
    pub(super) clock: LinkClock,
    pub(super) log: Arc<ProxyLog>,
}

impl LinkSession {
    /// Ends the present socket, if there is one.
    pub(super) fn stop(&self, reason: StopReason) {
        lock(&self.socket).stop(reason, &self.outbox);
    }

    /// Waits until a doubt has lasted for long enough; for ever without one.
    async fn judge(&self, doubted_at: Option<Instant>) {
        match doubted_at {
            Some(since) => sleep_until(since + self.patience).await,
            None => future::pending().await,
        }
    }

    /// Waits until it has no socket.
    pub(super) async fn detached(&self) {
        loop {
            let detached = self.detached.notified();
            if !self.outbox.is_open() {
                return;
            }
            detached.await;
        }
    }

    /// A socket has ended; returns what ends the session with it. To be called by [`Slots`] alone.
    pub(super) fn detach(&self, attachment: Attachment) -> Option<SessionEndReason> {
        let verdict = self.outbox.detach(attachment, self.clock.now_ms());
        self.detached.notify_waiters();
        match verdict {
            Some(SessionEvent::End(cause)) => Some(cause),
            _ => None,
        }
    }

    /// Logs that it has a socket, again or not.
    pub(super) fn log_opened(&self, is_resumed: bool) {
        let SlotKey { hub, node, slot, .. } = &self.key;
        tracing::debug!(%hub, %node, slot, is_resumed, "link opened");
        self.log.opened(&self.key, self.service_name());
    }

    /// Logs that its socket has ended.
    pub(super) fn log_ended(&self, end: &LinkEnd) {
        let SlotKey { hub, node, slot, .. } = &self.key;
        let reason = end.reason(Role::AppServer);
        tracing::debug!(%hub, %node, slot, end = %reason, cause = end.source(), "link ended");
        self.log.ended(&self.key, self.service_name(), end);
    }

    pub(super) fn service_name(&self) -> Option<&Arc<str>> {
        self.service.as_ref().map(|service| &service.name)
    }

    /// Tells everybody, once; to be called by [`Slots`] alone, which knows that it was not over before.
    pub(super) fn end(&self, close: &ConnectionClose) {
        if self.endpoint.outbound().end_session(&self.node, self.key.slot) {
            self.endpoint.handle_node_lost(&self.node);
        }
        self.endpoint.handle_link_ended(self.id, close);
        self.log.session_over(&self.key, self.service_name(), close);
        self.over.cancel();
    }
}

/// Counts the silence of the proxy, and ends the session when that has lasted too long, or with the app server.
///
/// Nothing tells a proxy that has started again from a second one of its name but that the former is silent: a proxy that
/// lives pings several times within the default window, and one that was cut off for its window has given the session up.
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
