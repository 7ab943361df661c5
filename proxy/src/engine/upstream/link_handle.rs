//! Link as seen by the rest of the proxy: any shard may write to it while its session lives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use trunkline_link::{LinkOutbox, OutboxPolicy};
use trunkline_protocol::service::{
    Answer, Attachment, Class, ECHO_KEY, LinkKind, Offer, Ping, ServiceMessage, Session, SessionError,
    encode_connection_data, encode_traced_data,
};

use super::capability::LinkCapabilities;
use super::{AppServerId, HubIdentity, HubIndex, LinkId, ReplyTo};
use crate::ground::auth::{Signer, TokenSigner};
use crate::ground::limits::LinkAnswers;

/// Echo value used by [`LinkHandle::fence`].
const FENCE: &str = "fence";

/// Local end of a slot's session, across all sockets of the link.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    pub(crate) id: LinkId,
    hub: Arc<HubIdentity>,
    pub(crate) app: AppServerId,
    outbox: LinkOutbox,
    pub(crate) capabilities: &'static LinkCapabilities,
    supports_causes: AtomicBool,
    supports_handovers: AtomicBool,
    supports_moves: AtomicBool,
    supports_traces: AtomicBool,
    /// Details sent by an app server that dialled in.
    dialled_in: Option<Box<DialledIn>>,
    /// Answers to an app server that dialled in.
    answers: Option<LinkAnswers>,
    /// Whether its clients are moving to other links.
    is_leaving: AtomicBool,
    /// Cancelled when the link should close.
    pub(crate) given_up: CancellationToken,
    fences: Mutex<Fences>,
}

/// Callers waiting for an echo; at most one echo is in flight.
#[derive(Debug, Default)]
struct Fences {
    asked: Vec<oneshot::Sender<()>>,
    next: Vec<oneshot::Sender<()>>,
}

/// Link dialled by an app server, as by Azure's SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DialledIn {
    /// Requested kind of link.
    pub kind: LinkKind,
    /// Host that the app server dialled. With several proxies under different names, it sends each message to all.
    pub endpoint: Box<str>,
    /// Signer of the token that admitted the link.
    pub signer: TokenSigner,
    /// Whether another node carries the link; the host then belongs to that node.
    pub is_carried: bool,
    /// Whether its clients may resume their connections.
    pub allows_reconnect: bool,
}

impl LinkHandle {
    /// Link with a new session. Its clients are paused while more than `unsent_max_bytes` wait for the socket; the ring
    /// bounds the total.
    pub(crate) fn new(hub: Arc<HubIdentity>, app: AppServerId, unsent_max_bytes: usize, session: Session) -> Self {
        Self::beginning(hub, app, unsent_max_bytes, Some(session))
    }

    /// Link dialled by an app server. Its session ends with its socket, or when the pool is retired.
    pub(crate) fn dialled_in(
        hub: Arc<HubIdentity>,
        app: AppServerId,
        unsent_max_bytes: usize,
        session: Session,
        dialled_in: DialledIn,
        retired: &CancellationToken,
    ) -> Self {
        let (dialled_in, given_up) = (Some(Box::new(dialled_in)), retired.child_token());
        let capabilities = &LinkCapabilities::DIALLED_IN;
        Self { capabilities, dialled_in, given_up, ..Self::beginning(hub, app, unsent_max_bytes, Some(session)) }
    }

    /// Counts the answers to the app server.
    #[must_use]
    pub(crate) fn with_answers(self, answers: LinkAnswers) -> Self {
        Self { answers: Some(answers), ..self }
    }

    pub(crate) fn answers(&self) -> Option<&LinkAnswers> {
        self.answers.as_ref()
    }

    fn beginning(hub: Arc<HubIdentity>, app: AppServerId, unsent_max_bytes: usize, session: Option<Session>) -> Self {
        Self {
            dialled_in: None,
            answers: None,
            is_leaving: AtomicBool::new(false),
            given_up: CancellationToken::new(),
            fences: Mutex::default(),
            id: LinkId::next(),
            hub,
            app,
            capabilities: &LinkCapabilities::DIALLED,
            outbox: LinkOutbox::new(OutboxPolicy::pausing(unsent_max_bytes), session),
            supports_causes: AtomicBool::new(false),
            supports_handovers: AtomicBool::new(false),
            supports_moves: AtomicBool::new(false),
            supports_traces: AtomicBool::new(false),
        }
    }

    /// Placeholder home of a client connection that waits for its first link.
    pub(crate) fn nowhere(hub: Arc<HubIdentity>) -> Self {
        Self::beginning(hub, AppServerId::NONE, 0, None)
    }

    pub(crate) fn hub(&self) -> HubIndex {
        self.hub.index
    }

    pub(crate) fn hub_identity(&self) -> &Arc<HubIdentity> {
        &self.hub
    }

    pub(crate) fn outbox(&self) -> &LinkOutbox {
        &self.outbox
    }

    /// Whether its clients must be paused, because too much is queued or unacknowledged.
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// Whether a socket is attached.
    pub(crate) fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    pub(crate) fn supports_causes(&self) -> bool {
        self.supports_causes.load(Ordering::Relaxed)
    }

    /// Whether the app server accepts the ends of connections handed over from another one.
    pub(crate) fn supports_handovers(&self) -> bool {
        self.supports_handovers.load(Ordering::Relaxed)
    }

    pub(crate) fn supports_moves(&self) -> bool {
        self.supports_moves.load(Ordering::Relaxed)
    }

    /// Whether the app server reports on marked messages.
    pub(crate) fn supports_traces(&self) -> bool {
        self.supports_traces.load(Ordering::Relaxed)
    }

    /// Whether its clients may move to another node. By dial-in, only resumable clients: app servers support a pause
    /// and a resume over another node's link.
    pub(crate) fn lets_clients_move(&self) -> bool {
        self.dialled_in.as_ref().map_or_else(|| self.supports_moves(), |dialled_in| dialled_in.allows_reconnect)
    }

    /// Host dialled by the app server; `None` for a link dialled by this node.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.dialled_in.as_ref().map(|dialled_in| &*dialled_in.endpoint)
    }

    /// Signer of the token that admitted the link; `None` for a link dialled by this node.
    pub(crate) fn token_signer(&self) -> Option<&TokenSigner> {
        self.dialled_in.as_ref().map(|dialled_in| &dialled_in.signer)
    }

    /// Whether another node carries the link, which ends with the link to that node.
    pub(crate) fn is_carried(&self) -> bool {
        self.dialled_in.as_ref().is_some_and(|dialled_in| dialled_in.is_carried)
    }

    /// Whether the link may be a client's home.
    pub(crate) fn may_carry_clients(&self) -> bool {
        let is_weak = self.dialled_in.as_ref().is_some_and(|dialled_in| dialled_in.kind == LinkKind::Weak);
        !is_weak && !self.is_leaving.load(Ordering::Relaxed)
    }

    /// Stops assigning clients to this link. Returns `false` if this was already so.
    pub(crate) fn begin_leave(&self) -> bool {
        !self.is_leaving.swap(true, Ordering::Relaxed)
    }

    /// Closes the link, if an app server has dialled it.
    pub(crate) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Whether the app server has acknowledged everything sent.
    pub(crate) fn has_delivered_all(&self) -> bool {
        // In this order, because an ending session empties the ring last.
        self.outbox.ring_bytes() == 0 && !self.is_closed()
    }

    /// Bytes queued or not yet acknowledged.
    pub(crate) fn ring_bytes(&self) -> usize {
        self.outbox.ring_bytes()
    }

    /// Waits for room or the end of the session. Cancel-safe.
    pub(crate) async fn room(&self) {
        self.outbox.room().await;
    }

    /// Waits for an echo from an app server that dials in. Then each end has read all earlier messages of the other.
    pub(crate) async fn fence(&self) {
        let (passed, has_passed) = oneshot::channel();
        {
            let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
            fences.next.retain(|waiting| !waiting.is_closed());
            fences.next.push(passed);
            if fences.asked.is_empty() {
                self.ask_echo(&mut fences);
            }
        }
        drop(has_passed.await);
    }

    /// Handles a ping, which may be the echo awaited by [`fence`](Self::fence).
    pub(crate) fn take_echo(&self, ping: &Ping) {
        if ping.get(ECHO_KEY).is_some_and(|value| value == FENCE) {
            self.ask_echo(&mut self.fences.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Releases the callers of the received echo, and sends the next echo if new callers wait.
    fn ask_echo(&self, fences: &mut Fences) {
        fences.asked = std::mem::take(&mut fences.next);
        if !fences.asked.is_empty() {
            self.outbox.echo(&Ping { pairs: vec![(ECHO_KEY.into(), FENCE.into())] });
        }
    }

    /// Queues a message. Never refused: [`room`](Self::room) stops the sources instead.
    pub(crate) fn send(&self, message: &ServiceMessage) {
        // Ignored after the end of the session: there is no receiver.
        let _ = self.outbox.push(Class::Reserved, |buffer| message.encode(buffer));
    }

    /// Like [`send`](Self::send); returns `false` if the session has ended.
    pub(crate) fn queue(&self, message: &ServiceMessage) -> bool {
        self.outbox.push(Class::Reserved, |buffer| message.encode(buffer)).is_ok()
    }

    pub(crate) fn send_data(&self, connection_id: &str, payload: &[u8], data_type: i64) {
        let encode = |buffer: &mut BytesMut| encode_connection_data(connection_id, payload, data_type, buffer);
        let _ = self.outbox.push(Class::Ordinary, encode);
    }

    /// Queues messages that the app server has to report on, with the mark of the first one.
    pub(crate) fn send_marked(&self, mark: i64, (id, payload): (&str, &[u8]), data_type: i64) {
        let _ = self.outbox.push(Class::Ordinary, |out| encode_traced_data(mark, id, payload, data_type, out));
    }

    /// Attaches the socket of a successful dial; also returns the number of frames to repeat. Fails if the answer is
    /// invalid.
    pub(crate) fn attach(
        &self,
        offer: &Offer,
        answer: &Answer,
        now_ms: u64,
    ) -> Result<Option<(Attachment, u64)>, SessionError> {
        self.supports_causes.store(answer.capabilities.supports_causes, Ordering::Relaxed);
        self.supports_handovers.store(answer.capabilities.supports_handovers, Ordering::Relaxed);
        self.supports_moves.store(answer.capabilities.supports_moves, Ordering::Relaxed);
        self.supports_traces.store(answer.capabilities.supports_traces, Ordering::Relaxed);
        self.outbox.attach_answer(offer, answer, now_ms)
    }
}

impl ReplyTo for LinkHandle {
    fn hub(&self) -> HubIndex {
        self.hub.index
    }

    fn app(&self) -> AppServerId {
        self.app
    }

    fn dial_in_link(&self) -> Option<LinkId> {
        self.dialled_in.as_ref().map(|_| self.id)
    }

    fn signer(&self) -> Option<&Signer> {
        self.token_signer().map(|signer| &signer.signer)
    }

    fn answer(&self, message: &ServiceMessage) {
        let mut bytes = 0;
        let _ = self.outbox.push(Class::Reserved, |buffer| {
            let before = buffer.len();
            message.encode(buffer);
            bytes = buffer.len() - before;
        });
        self.answers().into_iter().for_each(|answers| answers.add(bytes));
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::AccessKey;
    use trunkline_protocol::service::{Capabilities, Role, SessionId, SessionSettings};

    use super::*;

    const RING_BYTES: usize = 1000;

    impl LinkHandle {
        /// Open link dialled by an app server.
        pub(crate) fn opened_by_dial_in(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            let (kind, endpoint) = (LinkKind::Default, "here".into());
            let signer = TokenSigner { key: AccessKey::random(), signer: Signer::Fleet };
            let dialled_in = DialledIn { kind, endpoint, signer, is_carried: false, allows_reconnect: false };
            let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(RING_BYTES, 1000), 0);
            let link = Self::dialled_in(hub.clone(), app, usize::MAX, session, dialled_in, &CancellationToken::new());
            let answer = Answer { received: 0, capabilities: Capabilities::default() };
            link.attach(&link.outbox.offer().unwrap(), &answer, 0).unwrap().unwrap();
            link
        }

        /// Open link for tests of its writers.
        pub(crate) fn opened(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            Self::opened_with(hub, app, Capabilities::plain())
        }

        /// Open link to an app server that reports on marked messages.
        pub(crate) fn opened_traced(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            Self::opened_with(hub, app, Capabilities { supports_traces: true, ..Capabilities::plain() })
        }

        /// Open link to an app server without handovers.
        pub(crate) fn opened_without_handovers(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            Self::opened_with(hub, app, Capabilities { supports_handovers: false, ..Capabilities::plain() })
        }

        fn opened_with(hub: &Arc<HubIdentity>, app: AppServerId, capabilities: Capabilities) -> Self {
            let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(RING_BYTES, 1000), 0);
            let link = Self::new(hub.clone(), app, usize::MAX, session);
            let capabilities = Capabilities { resume_ring_bytes: Some(RING_BYTES), ..capabilities };
            link.attach(&link.outbox.offer().unwrap(), &Answer { received: 0, capabilities }, 0).unwrap().unwrap();
            link
        }
    }
}
