//! Session of one slot, which survives interruptions of its socket.

use std::future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_link::{LinkClock, LinkEnd, LinkOutbox, OutboxPolicy, SocketStop, StopReason};
use trunkline_protocol::limits::RESUME_WINDOW_MS;
use trunkline_protocol::service::{
    Answer, Attachment, Capabilities, Incoming, Offer, Role, Session, SessionEndReason, SessionError, SessionEvent,
    SessionSettings,
};

use super::app_socket::{Service, SlotKey};
use super::proxy_log::ProxyLog;
use crate::connection::{Connection, ConnectionClose, LinkId, RunQueue};
use crate::node::{Node, NodeName};
use crate::outbound::{Endpoint, SEND_FRAME_MAX_BYTES};
use crate::sync::lock;

/// Maximum resume window of a proxy. A longer one would keep connections of a dead proxy too long.
const WINDOW_MAX_MS: u64 = 600_000;

pub(crate) struct SessionTerms {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) key: SlotKey,
    /// The dialled service; `None` for a proxy.
    pub(crate) service: Option<Service>,
    /// Maximum bytes that a session keeps until the proxy acknowledges them.
    pub(crate) ring_max_bytes: usize,
    pub(crate) capabilities: Capabilities,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

pub(crate) struct LinkSession {
    /// Home link of its connections.
    pub(super) id: LinkId,
    pub(super) key: SlotKey,
    pub(super) service: Option<Service>,
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) node: Arc<Node>,
    pub(crate) outbox: Arc<LinkOutbox>,
    /// Numbering of incoming frames, while no socket owns it.
    pub(super) incoming: Mutex<Incoming>,
    pub(super) due: Arc<RunQueue<Arc<Connection>>>,
    pub(super) shutdown: CancellationToken,
    pub(super) socket: Mutex<SocketStop>,
    pub(super) detached: Notify,
    /// Notified when a newer process of a proxy with this name connects: this one must prove that it is alive.
    pub(super) doubted: Notify,
    /// Maximum silence of a live proxy.
    pub(super) patience: Duration,
    /// Notified when another proxy reports that this one has crashed.
    pub(super) reported_crashed: Notify,
    pub(super) over: CancellationToken,
    pub(super) clock: LinkClock,
    pub(super) log: Arc<ProxyLog>,
}

/// Permission to be the socket of a session, with the numbering of incoming frames.
pub(super) struct SessionSocket {
    pub(super) attachment: Attachment,
    pub(super) stop: SocketStop,
    pub(super) incoming: Incoming,
    pub(super) is_resumed: bool,
}

impl LinkSession {
    pub(super) fn new(terms: &SessionTerms, offer: &Offer, log: &Arc<ProxyLog>) -> Self {
        static LATEST: AtomicU64 = AtomicU64::new(0);
        let SlotKey { node, boot, .. } = &terms.key;
        let window_ms = offer.capabilities.window_ms.unwrap_or(RESUME_WINDOW_MS).clamp(1, WINDOW_MAX_MS);
        let client_message_max_bytes = Some(SEND_FRAME_MAX_BYTES);
        let settings =
            SessionSettings { client_message_max_bytes, ..SessionSettings::new(terms.ring_max_bytes, window_ms) };
        let session = Session::new(offer.session, Role::AppServer, settings, 0);
        let outbox = Arc::new(LinkOutbox::new(OutboxPolicy::waiting(), Some(session)));
        let service = terms.service.as_ref().map(|service| &*service.name);
        let name = NodeName { name: node, boot, service };
        let id = LinkId(LATEST.fetch_add(1, Ordering::Relaxed));
        Self {
            id,
            key: terms.key.clone(),
            node: terms.endpoint.outbound().begin_session(name, terms.capabilities, id.0, Arc::clone(&outbox)),
            service: terms.service.clone(),
            endpoint: Arc::clone(&terms.endpoint),
            outbox,
            incoming: Mutex::new(Incoming::default()),
            due: Arc::default(),
            shutdown: terms.shutdown.clone(),
            socket: Mutex::default(),
            detached: Notify::new(),
            doubted: Notify::new(),
            reported_crashed: Notify::new(),
            patience: Duration::from_millis(window_ms.min(RESUME_WINDOW_MS)),
            over: CancellationToken::new(),
            clock: LinkClock::start(),
            log: Arc::clone(log),
        }
    }

    /// Attaches a socket according to a valid offer; `None` if the session has ended.
    pub(super) fn attach(&self, offer: &Offer) -> Option<Result<(SessionSocket, Answer), SessionError>> {
        let attached = self.outbox.attach_offer(offer, self.clock.now_ms())?;
        Some(attached.map(|(attachment, answer)| {
            let mut incoming = std::mem::take(&mut *lock(&self.incoming));
            incoming.attach(answer.received);
            let stop = SocketStop::default();
            *lock(&self.socket) = stop.clone();
            (SessionSocket { attachment, stop, incoming, is_resumed: offer.received.is_some() }, answer)
        }))
    }

    pub(super) fn stop(&self, reason: StopReason) {
        lock(&self.socket).stop(reason, &self.outbox);
    }

    /// Waits until a suspected proxy has had [`patience`](Self::patience) to answer; forever without suspicion.
    pub(super) async fn suspicion_elapsed(&self, suspected_at: Option<Instant>) {
        match suspected_at {
            Some(since) => sleep_until(since + self.patience).await,
            None => future::pending().await,
        }
    }

    pub(super) async fn detached(&self) {
        loop {
            let detached = self.detached.notified();
            if !self.outbox.is_open() {
                return;
            }
            detached.await;
        }
    }

    /// Returns the reason if the session ends with the socket. For [`Slots`](super::slots::Slots) only.
    pub(super) fn detach(&self, attachment: Attachment) -> Option<SessionEndReason> {
        let verdict = self.outbox.detach(attachment, self.clock.now_ms());
        self.detached.notify_waiters();
        match verdict {
            Some(SessionEvent::End(cause)) => Some(cause),
            _ => None,
        }
    }

    pub(super) fn log_opened(&self, is_resumed: bool) {
        let SlotKey { hub, node, slot, .. } = &self.key;
        tracing::debug!(%hub, %node, slot, is_resumed, "link opened");
        self.log.opened(&self.key, self.service_name());
    }

    pub(super) fn log_ended(&self, end: &LinkEnd) {
        let SlotKey { hub, node, slot, .. } = &self.key;
        let reason = end.reason(Role::AppServer);
        tracing::debug!(%hub, %node, slot, end = %reason, cause = end.source(), "link ended");
        self.log.ended(&self.key, self.service_name(), end);
    }

    pub(super) fn service_name(&self) -> Option<&Arc<str>> {
        self.service.as_ref().map(|service| &service.name)
    }

    /// Notifies all parties of the end, once. Only [`Slots`](super::slots::Slots) may call this, because it ensures
    /// that the session has not ended before.
    pub(super) fn end_session(&self, close: &ConnectionClose) {
        if self.endpoint.outbound().end_session(&self.node, self.id.0) {
            self.endpoint.handle_node_lost(&self.node);
        }
        self.endpoint.handle_link_ended(self.id, close);
        self.log.session_over(&self.key, self.service_name(), close);
        self.over.cancel();
    }
}
