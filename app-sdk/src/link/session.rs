//! The session of one slot: what lives on while its socket is away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::service::{Attachment, Incoming, SessionEndReason, SessionEvent};

use super::{LinkEnd, SlotKey, Slots};
use crate::connection::{ConnectionClose, LinkId};
use crate::endpoint::Endpoint;
use crate::node::{Node, Outbox};
use crate::sync::lock;

/// A session, from its first upgrade until it is over.
pub(crate) struct LinkSession {
    /// What its connections are at home on.
    pub(super) id: LinkId,
    pub(super) key: SlotKey,
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) node: Arc<Node>,
    pub(super) outbox: Arc<Outbox>,
    /// Locked by the one reader for as long as frames are handed out.
    pub(super) incoming: Mutex<Incoming>,
    pub(super) shutdown: CancellationToken,
    pub(super) socket: Mutex<Socket>,
    pub(super) detached: Notify,
    /// Fires when it is over.
    pub(super) over: CancellationToken,
    pub(super) started: Instant,
}

/// What can be done to the present socket.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// Ends it.
    pub(super) stop: CancellationToken,
    /// Why it is to end; the first reason counts.
    reason: Option<Stop>,
}

/// Why a socket is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Replaced,
    Silent,
    Shutdown,
    Over(SessionEndReason),
}

impl From<Stop> for LinkEnd {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Replaced => LinkEnd::Replaced,
            Stop::Silent => LinkEnd::Silent,
            Stop::Shutdown => LinkEnd::Shutdown,
            Stop::Over(cause) => LinkEnd::Over(cause),
        }
    }
}

impl LinkSession {
    /// The session's clock.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of such a number.
    pub(super) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }

    /// Ends the present socket, if there is one.
    pub(super) fn stop(&self, why: Stop) {
        let mut socket = lock(&self.socket);
        socket.reason.get_or_insert(why);
        socket.stop.cancel();
    }

    /// Why the present socket was stopped.
    pub(super) fn stop_reason(&self) -> Option<Stop> {
        lock(&self.socket).reason
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
        let now_ms = self.now_ms();
        let verdict = self.outbox.with_session(|session| session.detach(attachment, now_ms)).flatten();
        self.detached.notify_waiters();
        match verdict {
            Some(SessionEvent::End(cause)) => Some(cause),
            _ => None,
        }
    }

    /// Tells everybody, once; to be called by [`Slots`] alone, which knows that it was not over before.
    pub(super) fn end(&self, close: &ConnectionClose) {
        if self.endpoint.outbound().end_session(&self.node, self.key.slot) {
            self.endpoint.handle_node_lost(&self.node);
        }
        self.endpoint.handle_link_ended(self.id, close);
        self.over.cancel();
    }
}

/// Counts the silence of the proxy, and ends the session when that has lasted too long, or with the app server.
pub(super) async fn keep(session: Arc<LinkSession>, slots: Arc<Slots>) {
    loop {
        let Some(tick_ms) = session.outbox.with_session(|session| session.tick_ms()) else { return };
        let why = tokio::select! {
            () = session.over.cancelled() => return,
            () = session.shutdown.cancelled() => Stop::Shutdown,
            () = tokio::time::sleep(Duration::from_millis(tick_ms)) => {
                let now_ms = session.now_ms();
                match session.outbox.with_session(|session| session.handle_timeout(now_ms)).flatten() {
                    None => continue,
                    Some(SessionEvent::PeerSilent) => {
                        session.stop(Stop::Silent);
                        continue;
                    }
                    Some(SessionEvent::End(cause)) => Stop::Over(cause),
                }
            }
        };
        session.stop(why);
        session.detached().await;
        // Unless it was resumed in this moment: then the silence has an end, or the new socket goes, too.
        if slots.end_detached(&session, &LinkEnd::from(why).of_connections())
            && let Stop::Over(cause) = why
        {
            let SlotKey { hub, node, slot, .. } = &session.key;
            tracing::warn!(%hub, %node, slot, %cause, "link over: its connections are missed");
        }
    }
}
